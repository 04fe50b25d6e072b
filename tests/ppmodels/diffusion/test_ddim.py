from itertools import pairwise

import pytest
import torch

from ppmodels.diffusion.ddim import ddim, ddim_encode
from ppmodels.diffusion.parametrisation import Denoiser
from ppmodels.diffusion.schedule import linear

SCHEDULE = linear()


@pytest.fixture
def denoiser(gaussian):
    return Denoiser(gaussian(4.0).network(SCHEDULE), SCHEDULE)


def marginal(variance):
    return float(SCHEDULE.alpha[-1] ** 2 * variance + SCHEDULE.sigma[-1] ** 2)


@pytest.mark.parametrize(("steps", "variance"), [(10, 2.862), (50, 3.762), (100, 3.880), (1000, 3.988)])
def test_output_variance(denoiser, steps, variance):
    unit = torch.ones(1, 1, dtype=torch.float64)  # the sampler is linear
    told = marginal(4.0) * float(ddim(denoiser, unit, num_inference_steps=steps)) ** 2
    assert told == pytest.approx(variance, abs=6e-4)


@pytest.mark.parametrize(("steps", "sd"), [(10, 0.36161), (20, 0.43045), (50, 0.47192), (100, 0.48585)])
def test_output_sd_of_narrow_data(gaussian, steps, sd):
    denoiser = Denoiser(gaussian(0.25).network(SCHEDULE), SCHEDULE)
    unit = torch.ones(1, 1, dtype=torch.float64)
    told = marginal(0.25) ** 0.5 * float(ddim(denoiser, unit, num_inference_steps=steps))
    assert told == pytest.approx(sd, rel=0.02)  # the source's grid is another one of as many steps


def test_fresh_noise_at_eta_one_is_ancestral_sampling(gaussian, exact_variance):
    from ppmodels.diffusion.samplers import ancestral

    denoiser = Denoiser(gaussian(0.25).network(SCHEDULE), SCHEDULE)
    by_ddim = exact_variance(lambda x: ddim(denoiser, x, num_inference_steps=50, eta=1.0), marginal(0.25))
    by_walk = exact_variance(
        lambda x: ancestral(denoiser, x, num_inference_steps=50, variance="posterior"), marginal(0.25)
    )
    assert by_ddim == pytest.approx(by_walk, rel=1e-10)
    assert by_ddim**0.5 == pytest.approx(0.44319, rel=0.02)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_fresh_noise_is_the_textbook_s(gaussian, exact_variance, eta):
    """The variance by recursion, with sigma^2 = eta^2 (1 - abar_s) / (1 - abar_t) (1 - abar_t / abar_s)."""
    denoiser = Denoiser(gaussian(4.0).network(SCHEDULE), SCHEDULE)
    times = [level.t for level in SCHEDULE.grid(40)]
    variance, alpha_bar = marginal(4.0), SCHEDULE.alpha_bar.tolist()
    for t, s in pairwise(times):
        here, there = alpha_bar[t], alpha_bar[s]
        fresh = eta**2 * (1 - there) / (1 - here) * (1 - here / there)
        slope = (1 - here) ** 0.5 / (4 * here + 1 - here)  # epsilon = slope x
        origin = (1 - (1 - here) ** 0.5 * slope) / here**0.5
        variance = (there**0.5 * origin + (1 - there - fresh) ** 0.5 * slope) ** 2 * variance + fresh
    told = exact_variance(lambda x: ddim(denoiser, x, num_inference_steps=40, eta=eta), marginal(4.0))
    assert told == pytest.approx(variance, rel=1e-10)


def test_seeds_decide(ring, seeded):
    denoiser = Denoiser(ring.network(SCHEDULE), SCHEDULE)
    x = torch.randn(5, 2, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(
        ddim(denoiser, x, num_inference_steps=10), ddim(denoiser, x, num_inference_steps=10), rtol=0, atol=0
    )
    once, again, other = (ddim(denoiser, x, num_inference_steps=10, eta=1.0, generator=seeded(s)) for s in (1, 1, 2))
    torch.testing.assert_close(once, again, rtol=0, atol=0)
    assert not torch.allclose(once, other)


def test_encode_and_decode_return(ring, seeded):
    denoiser = Denoiser(ring.network(SCHEDULE), SCHEDULE)
    x0, _ = ring.sample(32, seeded())
    errors = []
    for steps in (20, 80, 320):
        noise = ddim_encode(denoiser, x0, num_inference_steps=steps)
        back = ddim(denoiser, noise, num_inference_steps=steps)
        errors.append(float((back - x0).square().mean().sqrt()))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 0.01


def test_fixed_point_iterations_invert_the_sampler_itself(ring, seeded):
    denoiser = Denoiser(ring.network(SCHEDULE), SCHEDULE)
    x0, _ = ring.sample(16, seeded())
    noise = ddim_encode(denoiser, x0, num_inference_steps=50, iterations=12)
    rough = ddim_encode(denoiser, x0, num_inference_steps=50)
    fine, coarse = (
        float((ddim(denoiser, encoded, num_inference_steps=50) - x0).abs().max()) for encoded in (noise, rough)
    )
    assert fine < 1e-3 < coarse


def test_euler_on_the_flow_in_sigma_is_the_same_step(ring, seeded):
    from ppmodels.diffusion.solvers import pndm

    denoiser = Denoiser(ring.network(SCHEDULE), SCHEDULE)
    x = torch.randn(5, 2, generator=seeded(), dtype=torch.float64)
    one = pndm(denoiser, x, num_inference_steps=30, order=1, spacing="linspace")
    torch.testing.assert_close(one, ddim(denoiser, x, num_inference_steps=30), rtol=0, atol=1e-12)


def test_eta_outside_its_range(denoiser):
    with pytest.raises(ValueError, match="between 0 and 1; got 2"):
        ddim(denoiser, torch.ones(1, 1), eta=2.0)
