"""Kernel ridge regression is a posterior mean: by formula, by HMC and by SVI over the weights of the features."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from inference import mcmc, svi
from ppmodels.kernels.features import quadratic_features
from ppmodels.kernels.functions import Polynomial
from ppmodels.kernels.ridge import KernelRidge, primal_ridge

PENALTY = 0.25


def problem():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 2, generator=generator, dtype=torch.float64)
    return x, (x.sum(-1)).sin() + 0.5 * torch.randn(40, generator=generator, dtype=torch.float64)


def weights(phi, y):
    """w ~ N(0, I), y ~ N(phi w, penalty): kernel ridge regression, told as a story."""
    w = pyro.sample("w", dist.Normal(torch.zeros_like(phi[0]), 1.0).to_event(1))
    with pyro.plate("rows", len(phi)):
        pyro.sample("y", dist.Normal(phi @ w, math.sqrt(PENALTY)), obs=y)


def test_hmc_means_are_kernel_ridge_regression():
    x, y = problem()
    phi, new = quadratic_features(x), quadratic_features(x[:5] + 0.3)
    fit = mcmc.fit(weights, phi, y, kernel="hmc", seed=0, num_chains=64, num_samples=100, compile=False)
    by_chain = fit.draws["w"].mean(1)  # (64, 6); chains are independent
    error = by_chain.std(0) / 8
    assert error.max() < 0.02
    assert ((by_chain.mean(0) - primal_ridge(phi, y, PENALTY)).abs() < 4 * error).all()
    ridge, exact = KernelRidge.fit(x, y, Polynomial(2), PENALTY), by_chain @ new.mT
    assert ((exact.mean(0) - ridge.predict(x[:5] + 0.3)).abs() < 4 * exact.std(0) / 8).all()
    spread = (fit.draws["w"] @ new.mT).flatten(0, 1).var(0)
    assert torch.allclose(spread, ridge.variance(x[:5] + 0.3), rtol=0.1)


def test_svi_means_are_kernel_ridge_regression():
    x, y = problem()
    phi = quadratic_features(x)
    fit = svi.fit(weights, phi, y, guide="full-rank", seed=0, num_steps=3000, num_samples=4000, compile=False)
    draws = fit.draws["w"][0]
    sd = (PENALTY * torch.linalg.inv(phi.mT @ phi + PENALTY * torch.eye(6))).diagonal().sqrt()
    gap = (draws.mean(0) - primal_ridge(phi, y, PENALTY)) / sd
    assert gap.abs().max() < 0.1
    assert draws.std(0) / sd == pytest.approx(torch.ones(6), rel=0.1)
