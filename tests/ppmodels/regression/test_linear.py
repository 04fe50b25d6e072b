"""Linear regression against formulas of another shape, and against sums over a grid."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scipy.stats import multivariate_t
from torch.distributions import MultivariateNormal

from inference import exact
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


@pytest.mark.parametrize("intercept", [True, False])
def test_with_unknown_noise_y_is_student(intercept):
    """Integrated over coef and precision, y has a Student density: Bishop, equation 2.162, in N dimensions."""
    data = sample()
    model = LinearRegression(features=2, intercept=intercept, noise=None, spread=3.0, shape=2.5, rate=0.7)
    x, y = data.given["x"], data.observed["y"]
    design = torch.cat([torch.ones_like(x[:, :1]), x], 1) if intercept else x
    total = torch.eye(30).double() + 9 * design @ design.T
    student = multivariate_t(loc=None, shape=(0.7 / 2.5 * total).numpy(), df=5.0)
    assert float(model.log_evidence(data)) == pytest.approx(student.logpdf(y.numpy()), abs=1e-8)


def test_the_joint_over_the_posterior_is_the_evidence_wherever_it_is_taken():
    """Bayes' theorem: log p(y, theta) - log p(theta | y) = log p(y) at every theta."""
    data = sample()
    for model in (LinearRegression(features=2, noise=None), LinearRegression(features=2, noise=0.4, spread=2.0)):
        fit = exact.fit(model, data, num_samples=5, seed=1)
        for i in range(5):
            theta = {name: value[0, i] for name, value in fit.draws.items()}
            log_joint = poutine.trace(pyro.condition(model.model, {**theta, **data.observed})).get_trace(data)
            laws = model.posterior(data)
            laws = {n: law if isinstance(law, dist.Distribution) else law(theta) for n, law in laws.items()}
            log_posterior = sum(law.log_prob(theta[name]) for name, law in laws.items())
            found = float(log_joint.log_prob_sum() - log_posterior)
            assert found == pytest.approx(float(model.log_evidence(data)), abs=1e-8)
            assert fit.info["log_evidence"] == pytest.approx(found, abs=1e-8)


@pytest.mark.parametrize(
    "fields", [{"features": -1}, {"features": 0, "intercept": False}, {"noise": 0.0}, {"spread": -1.0}, {"rate": 0.0}]
)
def test_wrong_fields_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        LinearRegression(**fields)


def test_wrong_columns_are_refused():
    with pytest.raises(ValueError, match=r"x must be \(rows, 3\); it is \(30, 2\)"):
        LinearRegression(features=3).posterior(sample())
