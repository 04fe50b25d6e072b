"""L-BFGS in lockstep: known maxima, hard valleys, ends that are said honestly."""

import math

import pytest
import torch

from inference.optimum.curvature import Curvature
from inference.optimum.lbfgs import CONVERGED, NO_START, RUNNING, maximise

F = torch.float64


def starts(paths, dim, seed=0, radius=2.0):
    generator = torch.Generator().manual_seed(seed)
    return radius * (2 * torch.rand(paths, dim, generator=generator, dtype=F) - 1)


def by_autograd(log_prob):
    def evaluate(x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = log_prob(x)
            (grad,) = torch.autograd.grad(value.sum(), x)
        return value.detach(), grad

    return evaluate


def quadratic(condition, dim):
    eigenvalues = torch.logspace(0, math.log10(condition), dim, dtype=F)
    rotation, _ = torch.linalg.qr(starts(dim, dim, seed=7))
    precision = rotation * eigenvalues @ rotation.T
    mode = torch.linspace(-1, 1, dim, dtype=F)
    return by_autograd(lambda x: -0.5 * (((x - mode) @ precision) * (x - mode)).sum(-1)), mode, precision


def rosenbrock(x):
    return -((1 - x[:, :-1]) ** 2 + 100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2).sum(-1)


@pytest.mark.parametrize(("condition", "dim"), [(1.0, 1), (1e2, 5), (1e4, 20), (1e6, 8)])
def test_finds_the_mean_of_a_gaussian(condition, dim):
    evaluate, mode, _ = quadratic(condition, dim)
    found = maximise(evaluate, starts(6, dim), tol=1e-20)
    assert bool((found.decrement <= 1e-20).all())
    assert torch.allclose(found.x, mode.expand(6, -1), atol=1e-8)


def test_rosenbrock_from_everywhere():
    found = maximise(by_autograd(rosenbrock), starts(32, 2), tol=1e-14)
    assert bool(found.converged.all())
    assert torch.allclose(found.x, torch.ones(32, 2, dtype=F), atol=1e-5)


def test_units_do_not_matter():
    """The criterion is in nats: the same density in other units ends at the same place, in its own units."""
    units = torch.tensor([1e-3, 1.0, 1e3], dtype=F)
    evaluate, mode, _ = quadratic(10.0, 3)

    def rescaled(x):
        value, grad = evaluate(x / units)
        return value, grad / units

    found = maximise(rescaled, starts(4, 3) * units, tol=1e-16)
    assert bool(found.converged.all())
    assert torch.allclose(found.x / units, mode.expand(4, -1), atol=1e-6)


def test_together_is_one_by_one():
    evaluate, start = by_autograd(rosenbrock), starts(8, 4, seed=3)
    together = maximise(evaluate, start, tol=1e-10, keep=True)
    for row in range(8):
        alone = maximise(evaluate, start[row : row + 1], tol=1e-10, keep=True)
        assert int(alone.steps[0]) == int(together.steps[row])
        length = int(alone.trajectory.length[0])
        assert length == int(together.trajectory.length[row])
        assert torch.allclose(alone.x[0], together.x[row], rtol=1e-7, atol=1e-9)
        assert torch.allclose(alone.values[0], together.values[row, :length], rtol=1e-6, atol=1e-9)


def test_never_goes_down_and_keeps_its_way():
    found = maximise(by_autograd(rosenbrock), starts(8, 3), keep=True)
    assert bool((found.values.diff(dim=1) >= 0).all())
    way = found.trajectory
    assert torch.equal(way.length, found.steps + 1)
    assert torch.equal(way.x[:, -1], found.x)
    value, grad = by_autograd(rosenbrock)(way.x.flatten(0, 1))
    assert torch.allclose(value.reshape(way.log_prob.shape), way.log_prob)
    assert torch.allclose(grad.reshape(way.grad.shape), way.grad)


def test_an_ended_path_is_left_alone():
    evaluate, mode, _ = quadratic(1e5, 6)
    start = starts(3, 6)
    start[1] = mode
    found = maximise(evaluate, start, tol=1e-16)
    assert int(found.steps[1]) == 0
    assert torch.equal(found.x[1], mode)
    assert bool(found.converged.all())


def test_says_when_steps_ran_out():
    found = maximise(by_autograd(rosenbrock), starts(4, 10), num_steps=3)
    assert bool((found.status == RUNNING).all())
    assert not bool(found.converged.any())
    assert bool((found.steps == 3).all())


def test_says_when_a_start_is_not_finite():
    start = torch.tensor([[1.0], [-1.0]], dtype=F)
    found = maximise(by_autograd(lambda x: (x.log() - x).sum(-1)), start)
    assert found.status.tolist() == [CONVERGED, NO_START]
    assert float(found.x[0, 0]) == pytest.approx(1.0, abs=1e-4)


def test_a_wall_of_nan_is_a_step_too_far():
    """log x - x / 100: defined for positive x only, and the first steps overshoot to the left and the right."""
    start = torch.tensor([[1e-3], [0.5], [90.0], [5000.0]], dtype=F)
    found = maximise(by_autograd(lambda x: (x.log() - x / 100).sum(-1)), start, tol=1e-12)
    assert bool(found.converged.all())
    assert torch.allclose(found.x, torch.full((4, 1), 100.0, dtype=F), rtol=1e-5)


def test_no_maximum_is_not_converged():
    found = maximise(by_autograd(lambda x: x.sum(-1)), starts(3, 2), num_steps=50)
    assert not bool(found.converged.any())


def test_a_wrong_gradient_is_not_converged():
    def evaluate(x):
        return -(x * x).sum(-1), 2 * x  # points downhill

    found = maximise(evaluate, starts(3, 2))
    assert not bool(found.converged.any())


def test_curvature_satisfies_the_secant_equation():
    generator = torch.Generator().manual_seed(0)
    s = torch.randn(3, 4, 6, generator=generator, dtype=F)
    root = torch.randn(6, 6, generator=generator, dtype=F)
    y = s @ (root @ root.T + torch.eye(6, dtype=F))
    curvature = Curvature(s[:, 0], memory=5)
    for pair in range(4):
        curvature.remember(torch.ones(3, dtype=torch.bool), s[:, pair], y[:, pair])
    assert torch.allclose(curvature.times(y[:, -1]), s[:, -1], atol=1e-10)


def test_curvature_equals_the_dense_update():
    """H' = (I - s y'/sy) H (I - y s'/sy) + s s'/sy, from the same diagonal, over the pairs kept."""
    generator = torch.Generator().manual_seed(1)
    s = torch.randn(5, 4, generator=generator, dtype=F)
    root = torch.randn(4, 4, generator=generator, dtype=F)
    y = s @ (root @ root.T + torch.eye(4, dtype=F))
    curvature = Curvature(s[:1], memory=3)
    for pair in range(5):
        curvature.remember(torch.ones(1, dtype=torch.bool), s[pair : pair + 1], y[pair : pair + 1])
    dense = torch.diag(curvature.scale[0])
    for a, b in zip(s[2:], y[2:], strict=True):
        left = torch.eye(4, dtype=F) - torch.outer(a, b) / (a @ b)
        dense = left @ dense @ left.T + torch.outer(a, a) / (a @ b)
    identity = torch.eye(4, dtype=F)
    ours = torch.stack([curvature.times(row[None])[0] for row in identity])
    assert torch.allclose(ours, dense, atol=1e-10)


def test_single_precision_ends_too():
    evaluate, mode, _ = quadratic(100.0, 4)

    def single(x):
        value, grad = evaluate(x.double())
        return value.float(), grad.float()

    found = maximise(single, starts(4, 4).float(), tol=1e-7)
    assert found.x.dtype == torch.float32
    assert torch.allclose(found.x, mode.float().expand(4, -1), atol=1e-2)
