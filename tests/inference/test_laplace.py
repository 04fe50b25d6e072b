"""Laplace's approximation: exact where it must be, off by known factors elsewhere, refused where there is none."""

import json
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from inference import Unsupported, laplace
from inference.base import fresh
from inference.density import Density
from inference.optimum.summit import flat

F = torch.float64


def gaussian(loc, cov):
    pyro.sample("x", dist.MultivariateNormal(loc, cov))


def covariance(fit) -> Tensor:
    return torch.cholesky_inverse(fit.state["precision_tril"])


def test_gaussian_is_exact():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, generator=generator, dtype=F) * torch.logspace(-2, 2, 6, dtype=F)[:, None]
    cov, loc = root @ root.T, torch.linspace(-3, 3, 6, dtype=F)
    fit = laplace.fit(gaussian, loc, cov)
    scale = cov.diagonal().sqrt()
    assert fit.info["converged"]
    assert torch.allclose(fit.state["loc"] / scale, loc / scale, atol=1e-10)
    assert torch.allclose(covariance(fit) / torch.outer(scale, scale), cov / torch.outer(scale, scale), atol=1e-10)
    assert fit.info["log_evidence"] == pytest.approx(0.0, abs=1e-10)
    assert fit.info["khat"] < 0.1


def regression(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(x.shape[1]), 2.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal((x * w).sum(-1), 0.3), obs=y)


def test_bayesian_linear_regression_is_exact():
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(40, 3, generator=generator, dtype=F), torch.randn(40, generator=generator, dtype=F)
    fit = laplace.fit(regression, x, y, num_samples=4000)
    posterior = torch.linalg.inv(x.T @ x / 0.09 + torch.eye(3, dtype=F) / 4)
    marginal = dist.MultivariateNormal(torch.zeros(40, dtype=F), 4 * x @ x.T + 0.09 * torch.eye(40, dtype=F))
    assert fit.info["log_evidence"] == pytest.approx(float(marginal.log_prob(y)), abs=1e-8)
    assert torch.allclose(covariance(fit), posterior, atol=1e-8)
    assert torch.allclose(fit.state["loc"], posterior @ x.T @ y / 0.09, atol=1e-8)
    draws = fit.draws["w"][0]
    assert draws.shape == (4000, 3)
    standard = (draws - fit.state["loc"]) @ torch.linalg.inv(torch.linalg.cholesky(posterior)).T
    assert torch.allclose(standard.mean(0), torch.zeros(3, dtype=F), atol=4 / math.sqrt(4000))
    assert torch.allclose(torch.cov(standard.T), torch.eye(3, dtype=F), atol=0.1)


@pytest.mark.parametrize(("n", "ratio"), [(1, 0.92214), (5, 0.98349), (10, 0.99170)])
def test_stirling(n, ratio):
    """n! is the integral of x^n exp(-x); Laplace's method over x is Stirling's formula."""

    def program(n):
        x = pyro.sample("x", dist.Normal(1.0, 0.1).mask(False))  # flat
        pyro.factor("integrand", n * x.log() - x)

    fit = laplace.fit(program, torch.tensor(float(n), dtype=F))
    assert math.exp(fit.info["log_evidence"]) / math.factorial(n) == pytest.approx(ratio, abs=5e-6)


def test_stirling_in_log_coordinates():
    """A positive site is expanded in log x, where the integrand is x^(n + 1) exp(-x)."""
    n = 5.0
    program = lambda shape: pyro.sample("x", dist.Gamma(shape, 1.0))  # noqa: E731
    fit = laplace.fit(program, torch.tensor(n + 1, dtype=F))
    stirling = 0.5 * math.log(2 * math.pi / (n + 1)) + (n + 1) * (math.log(n + 1) - 1) - math.lgamma(n + 1)
    assert fit.info["log_evidence"] == pytest.approx(stirling, abs=1e-10)
    assert float(fit.draws["x"].min()) > 0


def mixture(x):
    loc = pyro.sample("loc", dist.Normal(0.0, 3.0))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(loc + 2 * z, 1.0), obs=x)


X = torch.tensor([0.3, 2.2, -0.4, 1.1, 0.9, 2.6, 0.1, -0.9, 1.7, 0.5, 0.2, 2.0], dtype=F)


def by_brute_force(loc):
    """log p(loc, x), with both assignments of every row written out."""
    zero, one = (dist.Normal(loc[:, None] + shift, 1.0).log_prob(X) for shift in (0.0, 2.0))
    rows = torch.logaddexp(zero + math.log(0.7), one + math.log(0.3))
    return rows.sum(-1) + dist.Normal(0.0, 3.0).log_prob(loc)


def test_enumerated_mixture_against_quadrature():
    fit = laplace.fit(mixture, X)
    grid = torch.linspace(-4, 5, 20_001, dtype=F)
    density = by_brute_force(grid)
    evidence = float(torch.logsumexp(density, 0) + (grid[1] - grid[0]).log())
    assert fit.info["log_density"] == pytest.approx(float(density.max()), abs=1e-6)
    assert fit.info["log_evidence"] == pytest.approx(evidence, abs=0.01)
    h = 1e-4
    around = by_brute_force(fit.state["loc"] + torch.tensor([-h, 0.0, h], dtype=F))
    curvature = float(-(around[0] - 2 * around[1] + around[2]) / h**2)
    assert float(fit.state["precision_tril"] ** 2) == pytest.approx(curvature, rel=1e-6)
    assert "z" not in fit.draws


def test_refuses_a_flat_direction_and_names_the_site():
    def program(y):
        pyro.sample("free", dist.Normal(0.0, 1.0).mask(False))
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y)

    with pytest.raises(Unsupported, match=r"site 'free' it has the eigenvalue -?0"):
        laplace.fit(program, torch.tensor(1.0, dtype=F))


def test_refuses_a_ridge():
    def program(y):
        a = pyro.sample("a", dist.Normal(0.0, 1.0).mask(False))
        b = pyro.sample("b", dist.Normal(0.0, 1.0).mask(False))
        pyro.sample("y", dist.Normal(a + b, 1.0), obs=y)

    with pytest.raises(Unsupported, match="not positive definite"):
        laplace.fit(program, torch.tensor(1.0, dtype=F))


def test_a_saddle_is_seen_in_any_units():
    def program():
        pyro.sample("one", dist.Normal(0.0, 1.0))
        pyro.sample("two", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    with fresh(program) as own:
        density = Density.of(own)
    units = torch.tensor([1e-6, 1.0, 1e6], dtype=F)
    up = torch.diag(units**2 * torch.tensor([-1.0, -2.0, -1.0], dtype=F))
    assert flat(density, up) is None
    saddle = up.clone()
    saddle[2, 2] *= -1
    assert flat(density, saddle).site == "two"
    assert flat(density, saddle).eigenvalue < 0
    saddle = up.clone()
    saddle[0, 0] *= -1
    assert flat(density, saddle).site == "one"


def test_khat_warns_of_heavy_tails():
    program = lambda df: pyro.sample("x", dist.StudentT(df, 0.0, 1.0))  # noqa: E731
    fit = laplace.fit(program, torch.tensor(1.0, dtype=F), num_samples=4000)
    assert fit.info["khat"] > 0.7
    assert "k-hat" in fit.info["message"]
    good = laplace.fit(program, torch.tensor(200.0, dtype=F), num_samples=4000)
    assert good.info["khat"] < 0.5


def test_says_when_the_climb_has_not_converged():
    x = torch.linspace(-1, 1, 20, dtype=F)
    fit = laplace.fit(regression, torch.stack([x, 50 * x**2], -1), x.exp(), num_steps=1)
    assert not fit.info["converged"]


def test_lp_is_the_density_of_the_draws_and_seeds_repeat():
    one, two = (laplace.fit(mixture, X, seed=5, num_samples=200) for _ in range(2))
    assert torch.equal(one.draws["loc"], two.draws["loc"])
    assert one.stats["lp"].shape == (1, 200)
    assert torch.allclose(one.stats["lp"][0], by_brute_force(one.draws["loc"][0]), atol=1e-10)
    json.dumps(one.info, allow_nan=False)


def test_computed_sites_follow_the_draws():
    def program(y):
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        pyro.deterministic("precision", scale**-2)
        pyro.sample("y", dist.Normal(0.0, scale).expand([len(y)]).to_event(1), obs=y)

    draws = laplace.fit(program, X, num_samples=50).draws
    assert torch.allclose(draws["precision"], draws["scale"] ** -2)
