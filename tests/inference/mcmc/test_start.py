"""Chains start where the mass is, with a metric that is nearly right."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from inference.base import fresh
from inference.density import Density
from inference.mcmc.plan import complete, plan
from inference.mcmc.start import start
from tests.inference.mcmc.test_plan import OPEN

SCALES = torch.logspace(-2, 2, 6, dtype=torch.float64)


def program():
    pyro.sample("x", dist.Normal(100 * SCALES, SCALES).to_event(1))


def started(program, chains=128, **options):
    with fresh(program):
        density = Density.of(program)
        decided = complete(plan(**OPEN | {"num_chains": chains, **options}), density)
        batched = density.batched(decided.warmup_chains, compile=False)
        return start(density, batched, decided, torch.Generator().manual_seed(1)), batched


def test_pathfinder_starts_chains_as_draws_of_a_gaussian_posterior():
    (chains, tuned, spent), batched = started(program)
    z = (chains.x - 100 * SCALES) / SCALES
    assert z.mean(0).abs().max() < 0.5
    assert 0.7 < z.std(0).min() < z.std(0).max() < 1.4
    assert chains.x.stride() == (1, 128)
    log_prob, grad = batched.once(chains.x)
    assert torch.equal(chains.log_prob, log_prob)
    assert torch.equal(chains.grad, grad)
    covariance = tuned.metric.factor @ tuned.metric.factor.mT
    torch.testing.assert_close(covariance.diagonal().sqrt(), SCALES, rtol=0.3, atol=0.0)
    assert spent > 16


def test_uniform_starts_are_in_the_box_with_a_unit_metric():
    (chains, tuned, spent), _ = started(program, init="uniform")
    assert chains.x.abs().max() < 2
    assert chains.x.std() == pytest.approx(4 / 12**0.5, abs=0.1)
    assert torch.equal(tuned.metric.factor, torch.eye(6, dtype=torch.float64))
    assert spent == 0


def test_both_modes_get_chains():
    def modes():
        x = pyro.sample("x", dist.Normal(0.0, 1.0).mask(False))
        both = torch.stack([dist.Normal(m, 1.0).log_prob(x) for m in (-10.0, 10.0)])
        pyro.factor("p", both.logsumexp(0))

    (chains, _, _), _ = started(modes)
    assert 0.1 < (chains.x > 0).double().mean() < 0.9
    torch.testing.assert_close((chains.x.abs() - 10).std(), torch.tensor(1.0).double(), rtol=0.3, atol=0.0)


def test_a_start_without_density_moves_to_one_that_has():
    def half():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.factor("half", torch.where(x > 0, 0.0, -torch.inf))

    (chains, _, _), _ = started(half)
    assert chains.log_prob.isfinite().all()
    assert (chains.x > 0).all()
