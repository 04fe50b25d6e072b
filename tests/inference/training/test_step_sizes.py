"""Robbins and Monro's recursion against the constants that theory gives it."""

import pytest
import torch

from inference.training.step_sizes import Cyclical, Polynomial, find_root, limiting_variance, plateau_variance

F = torch.float64


def test_steps_one_over_t_are_the_running_mean():
    x = torch.randn(1000, dtype=F, generator=torch.Generator().manual_seed(0))
    rows = iter(x)
    theta = find_root(lambda theta: theta - next(rows), torch.zeros((), dtype=F), Polynomial(1.0), 1000)
    assert float(theta) == pytest.approx(float(x.mean()), abs=1e-13)


@pytest.mark.parametrize(("scale", "limit"), [(1.0, 1.0), (2.0, 4 / 3), (0.75, 1.125)])
def test_the_variance_falls_as_theory_says(scale, limit):
    generator, searches, steps = torch.Generator().manual_seed(1), 10_000, 2000
    noisy = lambda theta: theta - torch.randn(searches, generator=generator, dtype=F)  # noqa: E731
    theta = find_root(noisy, torch.zeros(searches, dtype=F), Polynomial(scale), steps)
    assert limiting_variance(scale) == pytest.approx(limit)
    error = 4 * limit * (2 / searches) ** 0.5
    assert float(steps * theta.square().mean()) == pytest.approx(limit, abs=error + 0.02)


@pytest.mark.parametrize("size", [0.05, 0.3, 1.2])
def test_constant_steps_stay_at_a_plateau(size):
    generator, searches = torch.Generator().manual_seed(2), 20_000
    noisy = lambda theta: theta - 2.0 * torch.randn(searches, generator=generator, dtype=F)  # noqa: E731
    theta = find_root(noisy, torch.zeros(searches, dtype=F), lambda t: size, 300)
    wanted = plateau_variance(size, noise=2.0)
    assert wanted == pytest.approx(4 * size / (2 - size))
    assert float(theta.var()) == pytest.approx(wanted, rel=4 * (2 / searches) ** 0.5)


def test_a_quantile_is_found_without_a_gradient():
    generator = torch.Generator().manual_seed(3)
    draw = lambda: torch.randn(200, generator=generator, dtype=F)  # noqa: E731
    noisy = lambda theta: (draw() <= theta).to(F) - 0.9  # noqa: E731
    theta = find_root(noisy, torch.zeros(200, dtype=F), Polynomial(6.0, shift=30), 5000)
    assert float(theta.mean()) == pytest.approx(1.2816, abs=0.02)


def test_the_conditions():
    assert Polynomial(1.0, power=1.0).converges
    assert Polynomial(1.0, power=0.6).converges
    assert not Polynomial(1.0, power=0.5).settles
    assert not Polynomial(1.0, power=1.1).reaches
    with pytest.raises(ValueError, match="too small"):
        limiting_variance(0.5)
    with pytest.raises(ValueError, match=r"in \(0, 2\)"):
        plateau_variance(2.0)


def test_cycles_begin_large_and_end_small():
    sizes = Cyclical(0.1, 400, 4)
    assert sizes(1) == sizes(101) == sizes(301) == pytest.approx(0.1)
    assert sizes(51) == pytest.approx(0.05)
    assert sizes(100) < 1e-4
