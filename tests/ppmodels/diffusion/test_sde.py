import math

import pytest
import torch

from ppmodels.diffusion import sde as sdes
from ppmodels.diffusion.distance import sliced_wasserstein
from ppmodels.diffusion.likelihood import log_likelihood, standard_normal_prior

ALL = [sdes.VP(), sdes.VE(), sdes.EDM(20.0)]
NAMES = ["vp", "ve", "edm"]


def level(sde, t):
    alpha, sigma = sde.level(torch.tensor([t], dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64))
    return float(alpha), float(sigma)


@pytest.mark.parametrize("sde", ALL, ids=NAMES)
def test_rates_are_the_derivatives_of_the_levels(sde):
    """f = alpha' / alpha and g^2 = (sigma^2)' - 2 f sigma^2."""
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64) * sde.horizon
    t.requires_grad_()
    alpha, sigma = sde.level(t, t)
    (slope,) = torch.autograd.grad(alpha.log().sum() + 0 * t.sum(), t, retain_graph=True, allow_unused=True)
    (growth,) = torch.autograd.grad((sigma**2).sum(), t)
    f, g2 = sde.rates(t, t)
    torch.testing.assert_close(f, slope)
    torch.testing.assert_close(g2, growth - 2 * f * sigma**2)


@pytest.mark.parametrize("sde", ALL, ids=NAMES)
def test_simulation_has_the_marginals(sde, seeded):
    x0 = torch.full((20_000, 1), 1.5, dtype=torch.float64)
    x = sdes.simulate(sde, x0, num_steps=400, generator=seeded())
    alpha, sigma = level(sde, sde.horizon)
    assert level(sde, 0.0) == (1, 0)
    assert float(x.mean()) == pytest.approx(1.5 * alpha, abs=0.04 * sigma)
    assert float(x.std()) == pytest.approx(sigma, rel=0.03)


@pytest.mark.parametrize("sde", ALL, ids=NAMES)
def test_reverse_sde_gives_the_data_their_variance(sde, gaussian, exact_variance):
    world = gaussian(4.0)
    alpha, sigma = level(sde, sde.horizon)
    told = exact_variance(
        lambda x: sdes.reverse(sde, world.network(sde, "score"), x, num_inference_steps=1000),
        4 * alpha**2 + sigma**2,
    )
    assert told == pytest.approx(4.0, rel=0.02)


def test_corrector_mends_a_coarse_predictor(ring, seeded):
    sde, score = sdes.VP(), ring.network(sdes.VP(), "score")
    x = torch.randn(3000, 2, generator=seeded(), dtype=torch.float64)
    truth = ring.sample(3000, seeded(2))[0]
    alone, mended = (
        float(
            sliced_wasserstein(
                sdes.reverse(sde, score, x, num_inference_steps=6, corrector_steps=steps, snr=0.5, generator=seeded(1)),
                truth,
                generator=seeded(3),
            )
        )
        for steps in (0, 2)
    )
    assert mended < 0.8 * alone


@pytest.mark.parametrize("sde", ALL, ids=NAMES)
def test_flow_carries_gaussians_to_gaussians_and_back(sde, gaussian):
    world = gaussian(0.25, mean=0.7)
    velocity = sdes.probability_flow(sde, world.network(sde, "score"))
    x0 = torch.tensor([[0.1], [0.9], [2.0]], dtype=torch.float64)
    there = sdes.flow(velocity, x0, 0.0, sde.horizon, rtol=1e-8, atol=1e-8)
    alpha, sigma = level(sde, sde.horizon)
    exact = 0.7 * alpha + (x0 - 0.7) * math.sqrt((0.25 * alpha**2 + sigma**2) / 0.25)
    torch.testing.assert_close(there.x, exact, rtol=1e-5, atol=1e-6)
    back = sdes.flow(velocity, there.x, sde.horizon, 0.0, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(back.x, x0, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sde", ALL, ids=NAMES)
def test_log_likelihood_of_gaussian_data_is_the_normal_log_density(sde, gaussian, seeded):
    world = gaussian(0.25, mean=0.7, dim=3)
    x = world.sample(8, seeded())[0]
    alpha, sigma = level(sde, sde.horizon)
    velocity = sdes.probability_flow(sde, world.network(sde, "score"))
    told = log_likelihood(velocity, x, lambda v: world.log_prob(v, alpha, sigma), start=0.0, end=sde.horizon)
    torch.testing.assert_close(told.value, world.log_prob(x), rtol=0, atol=1e-4)
    assert torch.equal(told.standard_error, torch.zeros(8).double())


def test_log_likelihood_of_a_mixture(ring, seeded):
    sde, x = sdes.VP(), ring.sample(8, seeded())[0]
    velocity = sdes.probability_flow(sde, ring.network(sde, "score"))
    alpha, sigma = level(sde, 1.0)
    told = log_likelihood(velocity, x, lambda v: ring.log_prob(v, alpha, sigma), start=0.0, end=1.0)
    torch.testing.assert_close(told.value, ring.log_prob(x), rtol=0, atol=1e-3)


def test_standard_normal_prior_leaves_an_error_that_no_tolerance_removes(gaussian, seeded):
    """The data's mean is not quite forgotten at T: the exact p_T is the right prior."""
    sde, world = sdes.VP(), gaussian(0.25, mean=0.7, dim=3)
    x = world.sample(64, seeded())[0]
    velocity = sdes.probability_flow(sde, world.network(sde, "score"))
    told = log_likelihood(velocity, x, standard_normal_prior(), start=0.0, end=1.0, rtol=1e-8, atol=1e-8)
    assert 1e-3 < float((told.value - world.log_prob(x)).abs().max()) < 5e-2


def test_random_probes_are_unbiased_and_know_their_error(ring, seeded):
    sde, x = sdes.VP(), ring.sample(3, seeded())[0]
    velocity = sdes.probability_flow(sde, ring.network(sde, "score"))
    prior = standard_normal_prior()
    exact = log_likelihood(velocity, x, prior, start=0.0, end=1.0, rtol=1e-4, atol=1e-4)
    told = log_likelihood(
        velocity, x, prior, start=0.0, end=1.0, num_probes=60, rtol=1e-4, atol=1e-4, generator=seeded(1)
    )
    assert bool(((told.value - exact.value).abs() < 4 * told.standard_error + 1e-3).all())
    assert float(told.standard_error.min()) > 0
    once = log_likelihood(velocity, x, prior, start=0.0, end=1.0, num_probes=1, rtol=1e-3, atol=1e-3)
    assert bool(once.standard_error.isnan().all())  # one probe knows nothing of its error


def test_images_have_exact_likelihoods_too(seeded):
    """Any shape (B, ...): here 2 x 3 pixels that the flow only shrinks."""
    x = torch.randn(4, 1, 2, 3, generator=seeded(), dtype=torch.float64)
    told = log_likelihood(lambda v, t: -v, x, standard_normal_prior(), start=0.0, end=0.5)
    truth = standard_normal_prior(math.exp(0.5))(x)
    torch.testing.assert_close(told.value, truth, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: sdes.VP(20.0, 0.1), "must rise"),
        (lambda: sdes.VE(1.0, 1.0), "must rise"),
        (lambda: sdes.EDM(0.0), "must rise"),
        (lambda: sdes.VP().level(torch.zeros(2), torch.zeros(3, 1)), r"times must be \(3,\)"),
        (lambda: sdes.reverse(sdes.VP(), torch.add, torch.zeros(1, 1), end=0.0), "end must lie"),
        (lambda: sdes.reverse(sdes.VP(), torch.add, torch.zeros(1, 1), num_inference_steps=0), "steps be positive"),
        (
            lambda: log_likelihood(torch.add, torch.zeros(1, 1), torch.sum, start=0.0, end=1.0, num_probes=0),
            "num_probes must be positive",
        ),
    ],
)
def test_bad_input_gets_one_clear_line(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_an_ode_that_does_not_end_says_where_it_stood():
    from ppmodels.diffusion._ode import integrate

    with pytest.raises(RuntimeError, match="did not reach 2"):
        integrate(lambda x, t: x**2, torch.ones(1, 1).double(), 0.0, 2.0, max_steps=200)
