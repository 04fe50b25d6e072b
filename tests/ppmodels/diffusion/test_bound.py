import math

import pytest
import torch

from ppmodels.diffusion.bound import monte_carlo_bound, variational_bound
from ppmodels.diffusion.loss import noise_loss
from ppmodels.diffusion.parametrisation import Denoiser
from ppmodels.diffusion.schedule import linear


def scaled(steps):
    """The thousand-step schedule's noise in fewer, larger steps."""
    return linear(steps, 0.1 / steps, 20 / steps)


@pytest.mark.parametrize("variance", ["beta", "posterior"])
def test_the_two_forms_agree(gaussian, seeded, variance):
    schedule = scaled(40)
    perfect = gaussian(0.25, dim=2).network(schedule)
    denoiser = Denoiser(lambda x, t: 0.9 * perfect(x, t), schedule)
    x0 = torch.tensor([[0.3, -0.6]], dtype=torch.float64).expand(100_000, 2)
    rough = monte_carlo_bound(denoiser, x0, variance=variance, generator=seeded())
    fine = variational_bound(denoiser, x0, variance=variance, generator=seeded(1)).total
    error = math.sqrt(float(rough.var() + fine.var()) / 100_000)
    assert abs(float(rough.mean() - fine.mean())) < 4 * error


def test_bound_is_below_the_evidence_and_the_gap_closes_with_steps(gaussian, seeded):
    world = gaussian(4.0)
    x = world.sample(4000, seeded())[0]
    gaps = []
    for steps in (25, 100, 400):
        schedule = scaled(steps)
        denoiser = Denoiser(world.network(schedule), schedule)
        bound = monte_carlo_bound(denoiser, x, generator=seeded(1))
        gaps.append(float((world.log_prob(x) - bound).mean()))
    assert gaps[0] > 2.5 * gaps[1] > 5 * gaps[2] > 0
    assert gaps[2] < 0.02


def test_terms_have_names_and_shapes(gaussian, seeded):
    schedule = scaled(30)
    denoiser = Denoiser(gaussian(1.0, dim=3).network(schedule), schedule)
    terms = variational_bound(denoiser, torch.ones(5, 3).double(), generator=seeded())
    assert (terms.reconstruction.shape, terms.prior.shape, terms.denoising.shape) == ((5,), (5,), (5, 29))
    assert bool((terms.denoising >= 0).all())
    torch.testing.assert_close(terms.total, terms.reconstruction - terms.prior - terms.denoising.sum(-1))


def test_weighted_loss_is_the_bound_s_divergences(gaussian, seeded):
    """Averaged over t, the weighted noise loss is the sum of the means' part of the KLs, a dimension."""
    schedule = scaled(30)
    world = gaussian(0.5, dim=2)
    denoiser = Denoiser(lambda x, t: 0.7 * world.network(schedule)(x, t), schedule)
    x0 = world.sample(20_000, seeded())[0]
    told = noise_loss(denoiser, x0.repeat(4, 1), weighting="bound", generator=seeded(1))
    terms = variational_bound(denoiser, x0, generator=seeded(2))
    ratio = [float((1 - schedule.alpha_bar[t - 1]) / (1 - schedule.alpha_bar[t])) for t in range(2, 31)]
    widths = sum(r - 1 - math.log(r) for r in ratio)  # D / 2 times this for D = 2
    first = -terms.reconstruction - math.log(2 * math.pi * float(schedule.beta[1]))
    truth = (terms.denoising.sum(-1) - widths + first) / 2
    error = math.sqrt(float(told.var()) / len(told) + float(truth.var()) / len(truth))
    assert abs(float(told.mean() - truth.mean())) < 4 * error


def test_unknown_variance(gaussian):
    schedule = scaled(30)
    with pytest.raises(ValueError, match="no variance 'learned'"):
        variational_bound(Denoiser(gaussian().network(schedule), schedule), torch.ones(1, 1), variance="learned")
