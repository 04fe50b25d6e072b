"""Linear regression against formulas of another shape, and against sums over a grid."""

import math

import pyro
import pytest
import torch
from pyro import poutine
from torch.distributions import MultivariateNormal

from ppmodels import HasPosterior
from ppmodels.base import Data
from ppmodels.regression.linear import LinearRegression


def sample(n=30, features=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, features, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, generator=generator, dtype=torch.float64)
    return Data(n, {"x": x}, {"y": 1 + x.sum(-1) * 0.7 + 0.5 * noise})


@pytest.mark.parametrize("intercept", [True, False])
def test_posterior_is_a_gaussian_conditioned_on_y(intercept):
    data = sample()
    model = LinearRegression(features=2, intercept=intercept, noise=0.5, spread=3.0)
    assert isinstance(model, HasPosterior)
    x, y = data.given["x"], data.observed["y"]
    design = torch.cat([torch.ones_like(x[:, :1]), x], 1) if intercept else x
    total = 9 * design @ design.T + 0.25 * torch.eye(30).double()  # covariance of y
    gain = torch.linalg.solve(total, 9 * design).T  # (Q, N)
    site = model.posterior(data)["coef"]
    torch.testing.assert_close(site.mean, gain @ y, rtol=0, atol=1e-8)
    expected = 9 * torch.eye(design.shape[1]).double() - 9 * gain @ design
    torch.testing.assert_close(site.covariance_matrix, expected, rtol=0, atol=1e-8)
    evidence = MultivariateNormal(torch.zeros(30).double(), total).log_prob(y)
    assert float(model.log_evidence(data)) == pytest.approx(float(evidence), abs=1e-8)


def test_evidence_is_the_integral_of_the_pyro_program():
    data = sample(8, 1, seed=1)
    model = LinearRegression(features=1, noise=0.5, spread=2.0)
    site = model.posterior(data)["coef"]
    root = torch.linalg.cholesky(site.covariance_matrix)
    line = torch.linspace(-7, 7, 29, dtype=torch.float64)  # exponentially accurate for a Gaussian
    values = []
    for white in torch.cartesian_prod(line, line):
        held = {"coef": site.mean + root @ white, **data.observed}
        values.append(poutine.trace(pyro.condition(model.model, data=held)).get_trace(data).log_prob_sum())
    cell = 2 * math.log(0.5) + root.diagonal().log().sum()
    total = torch.stack(values).logsumexp(0) + cell
    assert float(total) == pytest.approx(float(model.log_evidence(data)), abs=1e-8)


@pytest.mark.parametrize(
    "fields", [{"features": -1}, {"features": 0, "intercept": False}, {"noise": 0.0}, {"spread": -1.0}]
)
def test_wrong_fields_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        LinearRegression(**fields)


def test_wrong_columns_are_refused():
    with pytest.raises(ValueError, match=r"x must be \(rows, 3\); it is \(30, 2\)"):
        LinearRegression(features=3).posterior(sample())
