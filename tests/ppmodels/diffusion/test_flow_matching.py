import math

import pytest
import torch

from ppmodels.diffusion import flow_matching as fm
from ppmodels.diffusion.distance import sliced_wasserstein
from ppmodels.diffusion.likelihood import log_likelihood, standard_normal_prior

PATH = fm.StraightPath()


@pytest.mark.parametrize("method", fm.METHODS)
def test_exact_velocity_makes_the_mixture(ring, seeded, method):
    noise = torch.randn(2000, 2, generator=seeded(), dtype=torch.float64)
    drawn = fm.flow_sample(ring.network(PATH, "velocity"), noise, num_inference_steps=40, method=method)
    truth, other = (ring.sample(2000, seeded(s))[0] for s in (1, 2))
    assert float(sliced_wasserstein(truth, other, generator=seeded(3))) < 0.15
    assert float(sliced_wasserstein(drawn, truth, generator=seeded(3))) < 0.15


def test_gaussian_flow_is_the_exact_map(gaussian):
    world = gaussian(0.25, mean=0.7)
    noise = torch.tensor([[-1.0], [0.3], [2.0]], dtype=torch.float64)
    errors = {}
    for method, order in (("euler", 1), ("midpoint", 2), ("heun", 2)):
        for steps in (40, 80):
            told = fm.flow_sample(world.network(PATH, "velocity"), noise, num_inference_steps=steps, method=method)
            errors[steps] = float((told - (0.7 + 0.5 * noise)).abs().max())
        assert math.log2(errors[40] / errors[80]) > order - 0.2


def test_log_likelihood_of_gaussian_data(gaussian, seeded):
    world = gaussian(0.25, mean=0.7, dim=2)
    x = world.sample(8, seeded())[0]
    told = log_likelihood(world.network(PATH, "velocity"), x, standard_normal_prior(), start=0.0, end=1.0)
    torch.testing.assert_close(told.value, world.log_prob(x), rtol=0, atol=1e-4)


def test_exact_velocity_minimises_the_loss(ring, seeded):
    x0 = ring.sample(20_000, seeded())[0]
    network = ring.network(PATH, "velocity")
    best = fm.flow_matching_loss(network, x0, generator=seeded(1))
    for change in (lambda v, t: 0.1 * torch.ones_like(v), lambda v, t: 0.1 * v):
        worse = fm.flow_matching_loss(lambda v, t, c=change: network(v, t) + c(v, t), x0, generator=seeded(1))
        assert float(worse.mean()) > float(best.mean())


def test_paired_noise_has_shorter_lines(ring, seeded):
    x0 = ring.sample(256, seeded())[0]
    noise = torch.randn(256, 2, generator=seeded(1), dtype=torch.float64)
    paired = fm.pair(x0, noise)
    assert torch.equal(paired.sort(0).values, noise.sort(0).values)
    assert float((paired - x0).square().sum()) < 0.6 * float((noise - x0).square().sum())


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: fm.flow_sample(torch.add, torch.zeros(1, 1), method="rk9"), "no method 'rk9'"),
        (lambda: fm.flow_sample(torch.add, torch.zeros(1, 1), num_inference_steps=0), "must be positive"),
        (lambda: PATH.level(torch.tensor([1.5]), torch.zeros(1, 1)), "between 0 and 1"),
        (lambda: fm.flow_matching_loss(lambda v, t: v[:, :1], torch.zeros(3, 2)), "must have one shape"),
    ],
)
def test_bad_input_gets_one_clear_line(call, says):
    with pytest.raises(ValueError, match=says):
        call()
