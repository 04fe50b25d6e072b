"""The ChEES criterion, its slope, and the trajectory length it leads to."""

from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import pytest
import torch

from inference import mcmc
from inference.base import fresh
from inference.density import Density
from inference.mcmc import chees
from inference.mcmc.chains import Chains, Tuned
from inference.mcmc.metric import Metric
from inference.mcmc.warmup import warm_up

BEST = 1.123  # maximises E[sin^2 t] over t uniform on (0, 2 length): tan(4 length) = 4 length


def standard():
    pyro.sample("x", dist.Normal(torch.zeros(5), 1.0).to_event(1))


def symmetric(generator):
    """Positions and momenta, each with its opposite, so that sample means are exactly zero."""
    z, n = (torch.randn(200, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    return torch.cat([z, -z]), torch.cat([n, -n])


@pytest.mark.parametrize("dense", [False, True])
def test_slope_is_the_derivative_of_the_criterion(dense):
    z, n = symmetric(torch.Generator().manual_seed(2))
    factor = torch.tensor([2.0, 0.5, 1.0], dtype=torch.float64)
    factor = torch.diag(factor) + torch.ones(3, 3).double().tril(-1) if dense else factor

    def model(z):
        return z @ factor.mT if dense else factor * z

    def flow(length, share=0.6):  # the exact trajectory of a standard normal
        t = torch.tensor(share * length, dtype=torch.float64)
        return z * t.cos() + n * t.sin(), n * t.cos() - z * t.sin()

    def criterion(length):
        return float(0.25 * (flow(length)[0].square().sum(1) - z.square().sum(1)).square().mean())

    proposed, last = flow(0.8)
    slope = chees.slope_of_criterion(factor, model(z), model(proposed), last, torch.ones(400).double(), 0.6)
    assert slope == pytest.approx((criterion(0.8 + 1e-5) - criterion(0.8 - 1e-5)) / 2e-5, rel=1e-6)


def test_rejected_and_broken_proposals_have_no_say():
    z, n = symmetric(torch.Generator().manual_seed(3))
    accept = torch.ones(400, dtype=torch.float64)
    proposed = 0.5 * z + n
    far = proposed.clone()
    far[:2], accept[:2] = torch.tensor([[torch.nan], [1e6]]).double(), 0.0
    slope = chees.slope_of_criterion(torch.ones(3).double(), z, far, n, accept, 1.0)
    without = chees.slope_of_criterion(torch.ones(3).double(), z, proposed, n, accept, 1.0)
    assert slope == pytest.approx(without)


@pytest.mark.parametrize("first", [0.3, 1.7])  # below the next maximum's basin
def test_length_goes_to_the_best_of_a_standard_normal(first):
    with fresh(standard):
        batched = Density.of(standard).batched(128, compile=False)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(5, 128, generator=generator, dtype=torch.float64).mT
    kernel = chees.kernel(batched, generator, SimpleNamespace(max_tree_depth=10))
    tuned = Tuned(0.3, first, Metric(torch.ones(5, dtype=torch.float64)))
    watched = []
    _, tuned = warm_up(
        kernel, Chains(x, *batched.once(x)), tuned, 250, 0.9, lambda turn, c, s, now: watched.append(now.length)
    )
    assert watched[0] == first
    assert tuned.length == pytest.approx(BEST, rel=0.2)


def test_draws_keep_the_length_that_warm_up_found():
    fit = mcmc.fit(standard, kernel="chees", num_chains=16, num_warmup=60, num_samples=40, compile=False, seed=1)
    length, step = fit.state["tuned"]["length"], fit.info["step_size"]
    assert length != 1.5
    assert fit.stats["n_steps"].max() <= 2 * length / step + 1
    assert fit.stats["n_steps"].double().mean() == pytest.approx(length / step + 0.5, rel=0.1)
