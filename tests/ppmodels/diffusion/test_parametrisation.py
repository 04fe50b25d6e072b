from itertools import product

import pytest
import torch

from ppmodels.diffusion.parametrisation import PREDICTIONS, Denoiser, convert, edm_preconditioning
from ppmodels.diffusion.schedule import edm, linear


@pytest.mark.parametrize(("source", "target"), list(product(PREDICTIONS, PREDICTIONS)))
@pytest.mark.parametrize(("alpha", "sigma"), [(0.6, 0.8), (1.0, 3.0)], ids=["vp", "ve"])
def test_every_prediction_converts_and_returns(source, target, alpha, sigma, seeded):
    x0, noise = torch.randn(2, 5, 3, generator=seeded(), dtype=torch.float64)
    x = alpha * x0 + sigma * noise
    known = {"epsilon": noise, "x0": x0, "v": alpha * noise - sigma * x0, "score": -noise / sigma}
    there = convert(known[source], x, alpha, sigma, source, target)
    torch.testing.assert_close(there, known[target], rtol=0, atol=1e-12)
    torch.testing.assert_close(convert(there, x, alpha, sigma, target, source), known[source], rtol=0, atol=1e-12)


def test_score_of_gaussian_data_is_minus_epsilon_over_sigma(gaussian, seeded):
    """The analytic network: sqrt(1 - abar) x / (abar s^2 + 1 - abar)."""
    schedule, world = linear(), gaussian(4.0)
    x = torch.randn(20, 1, generator=seeded(), dtype=torch.float64)
    for t in (1, 300, 1000):
        level = schedule.at(t)
        epsilon = level.sigma * x / (4 * level.alpha**2 + level.sigma**2)
        told = world.network(schedule)(x, torch.full((20,), t))
        torch.testing.assert_close(told, epsilon, rtol=0, atol=1e-12)
        score = torch.autograd.functional.jacobian(lambda v, at=level: world.log_prob(v, *at[1:]).sum(), x)
        torch.testing.assert_close(-told / level.sigma, score, rtol=0, atol=1e-10)


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("target", PREDICTIONS)
def test_perfect_networks_of_all_kinds_agree(prediction_type, target, ring, seeded):
    schedule = linear()
    x = torch.randn(6, 2, generator=seeded(), dtype=torch.float64)
    told = Denoiser(ring.network(schedule, prediction_type), schedule, prediction_type)
    reference = Denoiser(ring.network(schedule, target), schedule, target)
    for t in (5, 500):
        level = schedule.at(t)
        torch.testing.assert_close(
            told.predict(x, level, target), reference.predict(x, level, target), rtol=1e-8, atol=1e-8
        )


def test_preconditioning_gives_unit_inputs_and_targets(seeded):
    sigma = edm(20).sigma[1:]
    scale = edm_preconditioning(sigma, 0.5)
    x0 = 0.5 * torch.randn(200_000, 1, generator=seeded(), dtype=torch.float64)
    x = x0 + sigma * torch.randn(200_000, 20, generator=seeded(1), dtype=torch.float64)
    torch.testing.assert_close((scale.input * x).var(0), torch.ones(20).double(), atol=0.02, rtol=0)
    target = (x0 - scale.skip * x) / scale.out
    torch.testing.assert_close(target.var(0), torch.ones(20).double(), atol=0.02, rtol=0)
    torch.testing.assert_close(scale.weight * scale.out**2, torch.ones(20).double())


def test_clipping_changes_the_law_and_is_off(gaussian):
    schedule = linear()
    level = schedule.at(500)
    x = torch.tensor([[3.0]], dtype=torch.float64)
    network = gaussian(9.0).network(schedule)
    assert float(Denoiser(network, schedule).x0(x, level)) > 4
    assert float(Denoiser(network, schedule, clip=1.0).x0(x, level)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Denoiser(torch.add, linear(), "noise"), "no prediction_type 'noise'"),
        (lambda: Denoiser(torch.add, linear(), clip=-1.0), "clip must be positive"),
        (lambda: convert(torch.ones(1), torch.ones(1), 0.6, 0.8, "epsilon", "z"), "no prediction_type 'z'"),
        (
            lambda: Denoiser(lambda x, t: x[:, :1], linear()).epsilon(torch.ones(3, 2), linear().at(4)),
            r"maps \(3, 2\) to \(3, 1\)",
        ),
    ],
)
def test_bad_input_gets_one_clear_line(call, says):
    with pytest.raises(ValueError, match=says):
        call()
