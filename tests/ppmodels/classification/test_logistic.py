"""Bayesian logistic regression: derivatives, its mode by two ways, Gaussians around it, and predictions."""

import math

import numpy as np
import pytest
import torch
from pyro import condition, poutine
from scipy import integrate
from sklearn.linear_model import LogisticRegression as Reference

from inference import laplace as general_laplace
from inference import mcmc
from inference import mode as general_mode
from inference.predict import simulate
from ppmodels.base import Data
from ppmodels.classification import logistic_mode
from ppmodels.classification.logistic import LogisticRegression
from ppmodels.classification.logistic_posterior import (
    GaussianPosterior,
    elbo,
    expected_sigmoid,
    laplace,
    probit_sigmoid,
    variational,
)
from ppmodels.classification.probit import ProbitPerceptron


def problem(rows=60, features=2, seed=0, **fields):
    model = LogisticRegression(features=features, **fields)
    return model, simulate(model, rows, seed=seed)[0]


def evidence_on_a_grid(model, data, reach=14.0, points=601):
    """log p(y | x) with two coefficients, and the posterior's mean and covariance, by a fine sum."""
    mode = logistic_mode.newton(model, data)
    root = torch.linalg.cholesky(torch.linalg.inv(logistic_mode.precision(model, data, mode)))
    grid = torch.linspace(-reach, reach, points, dtype=torch.float64)
    white = torch.cartesian_prod(grid, grid)
    coef = mode + white @ root.mT
    sign = 2 * data.observed["y"].double() - 1
    score = torch.nn.functional.logsigmoid(sign * (coef @ model.design(data).mT)).sum(-1)
    score = score - coef.square().sum(-1) / (2 * model.spread**2) - 2 * math.log(model.spread * math.sqrt(2 * math.pi))
    weight = score.softmax(0)
    mean = weight @ coef
    covariance = (coef - mean).mT @ ((coef - mean) * weight[:, None])
    area = math.log((2 * reach / (points - 1)) ** 2) + float(root.diagonal().log().sum())
    return float(score.logsumexp(0)) + area, mean, covariance, coef, weight


def test_derivatives_are_autograds():
    model, data = problem()
    coef = torch.randn(3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    slope = torch.autograd.functional.jacobian(lambda c: logistic_mode.log_density(model, data, c), coef)
    torch.testing.assert_close(logistic_mode.gradient(model, data, coef), slope, rtol=1e-12, atol=1e-12)
    curvature = torch.autograd.functional.hessian(lambda c: logistic_mode.log_density(model, data, c), coef)
    torch.testing.assert_close(logistic_mode.precision(model, data, coef), -curvature, rtol=1e-12, atol=1e-12)


def test_newton_is_scikit_learns_and_the_general_mode():
    model, data = problem(rows=200, features=4, intercept=False, spread=1.5)
    ours = logistic_mode.newton(model, data)
    theirs = Reference(C=model.spread**2, fit_intercept=False, tol=1e-12, max_iter=10_000)
    theirs.fit(data.given["x"], data.observed["y"])
    np.testing.assert_allclose(ours, theirs.coef_[0], atol=1e-6)
    assert logistic_mode.gradient(model, data, ours).abs().max() < 1e-10
    np.testing.assert_allclose(ours, general_mode.fit(model, data).draws["coef"][0, 0], atol=1e-4)


def test_the_prior_makes_a_mode_where_classes_are_apart():
    x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]], dtype=torch.float64)
    model = LogisticRegression(features=1, spread=100.0)
    data = Data(4, {"x": x}, {"y": torch.tensor([0.0, 0, 1, 1], dtype=torch.float64)})
    coef = logistic_mode.newton(model, data)
    assert coef.isfinite().all()
    assert logistic_mode.gradient(model, data, coef).abs().max() < 1e-10


def test_stochastic_gradients_reach_newtons_mode():
    model, data = problem(rows=40, spread=1.0)
    assert (
        float(
            (logistic_mode.stochastic_gradient(model, data, lr=0.5, num_steps=1500) - logistic_mode.newton(model, data))
            .abs()
            .max()
        )
        < 5e-3
    )
    signed, coef = logistic_mode._signed(model, data), torch.zeros(3, dtype=torch.float64)
    decay = 1 / (2 * model.spread**2 * len(signed))
    expected = torch.stack([(coef * (1 - 2 * decay * 0.1) + 0.1 * x * (-(x @ coef)).sigmoid() - coef) for x in signed])
    torch.testing.assert_close(
        expected.sum(0) / 0.1, logistic_mode.gradient(model, data, coef)
    )  # unbiased: the same slope


@pytest.mark.parametrize(("mean", "variance", "exact", "mackay"), [
    (0, 1, 0.5, 0.5), (1, 1, 0.696735, 0.70001), (1, 4, 0.647726, 0.65106), (2, 9, 0.717424, 0.71895),
])  # fmt: skip
def test_the_mean_of_a_sigmoid(mean, variance, exact, mackay):
    m, v = torch.tensor(float(mean), dtype=torch.float64), torch.tensor(float(variance), dtype=torch.float64)
    assert float(expected_sigmoid(m, v)) == pytest.approx(exact, abs=1e-6)
    assert float(probit_sigmoid(m, v)) == pytest.approx(mackay, abs=1e-5)
    sd = math.sqrt(variance)
    slow = integrate.quad(
        lambda z: math.exp(-z * z / 2) / math.sqrt(2 * math.pi) / (1 + math.exp(-(mean + sd * z))), -9, 9
    )
    assert float(expected_sigmoid(m, v)) == pytest.approx(slow[0], abs=1e-8)
    draws = (m + sd * torch.randn(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).sigmoid()
    assert abs(float(draws.mean()) - float(expected_sigmoid(m, v))) < 4 * float(draws.std()) / 100_000**0.5


def test_laplace_is_the_general_one():
    model, data = problem(rows=50)
    own, fit = laplace(model, data), general_laplace.fit(model, data, num_samples=20_000)
    assert own.log_evidence == pytest.approx(fit.info["log_evidence"], abs=1e-4)
    draws = fit.draws["coef"][0]
    torch.testing.assert_close(draws.T.cov(), own.covariance, rtol=0.1, atol=0.02)


def test_evidences_are_in_order_and_the_bound_is_one():
    model, data = problem(rows=25, features=1)
    exact, mean, covariance, coef, weight = evidence_on_a_grid(model, data)
    diagonal, full, point = variational(model, data, diagonal=True), variational(model, data), laplace(model, data)
    assert diagonal.log_evidence < full.log_evidence < exact
    assert exact - full.log_evidence < 0.05
    root = torch.linalg.cholesky(point.covariance)
    assert full.log_evidence >= float(elbo(model, data, point.mean, root))
    torch.testing.assert_close(full.mean, mean, rtol=0, atol=0.15 * float(covariance.diagonal().sqrt().max()))
    error = [(g.covariance - covariance).norm() for g in (full, point)]
    assert error[0] < covariance.norm() * 0.3
    new = Data(7, {"x": torch.linspace(-4, 4, 7, dtype=torch.float64)[:, None]}, {})
    truth = weight @ (coef @ model.design(new).mT).sigmoid()
    for gaussian in (full, point):
        assert (gaussian.predict(new) - truth).abs().max() < 0.05
        assert (gaussian.predict(new, mackay=True) - gaussian.predict(new)).abs().max() < 0.02


def test_chains_have_the_covariance_that_laplace_approximates():
    model, data = problem(rows=25, features=1)
    _, mean, covariance, _, _ = evidence_on_a_grid(model, data)
    draws = mcmc.fit(model, data, num_chains=32, num_samples=200, compile=False).draws["coef"].flatten(0, 1)
    by_chains, by_laplace = draws.T.cov(), laplace(model, data)
    scale = covariance.diagonal().sqrt()
    assert ((draws.mean(0) - mean) / scale).abs().max() < 0.05
    assert ((by_chains - covariance) / torch.outer(scale, scale)).abs().max() < 0.08
    assert (by_laplace.covariance - covariance).norm() > (by_chains - covariance).norm()


def test_the_bound_is_what_draws_say():
    model, data = problem(rows=30)
    gaussian = variational(model, data)
    law = torch.distributions.MultivariateNormal(gaussian.mean, gaussian.covariance)
    torch.manual_seed(0)
    coef = law.sample((20_000,))
    sign = 2 * data.observed["y"].double() - 1
    fitted = torch.nn.functional.logsigmoid(sign * (coef @ model.design(data).mT)).sum(-1)
    prior = torch.distributions.Normal(torch.zeros(3, dtype=torch.float64), model.spread).log_prob(coef).sum(-1)
    gain = fitted + prior - law.log_prob(coef)
    assert abs(float(gain.mean()) - gaussian.log_evidence) < 4 * float(gain.std()) / 20_000**0.5
    prior_law = torch.distributions.MultivariateNormal(torch.zeros(3).double(), model.spread**2 * torch.eye(3).double())
    closed = torch.distributions.kl_divergence(law, prior_law)
    reach = 4 * float(fitted.std()) / 20_000**0.5
    assert float(fitted.mean() - closed) == pytest.approx(gaussian.log_evidence, abs=reach)


def test_a_point_is_surer_than_its_posterior():
    model, data = problem(rows=20)
    gaussian = laplace(model, data)
    far = Data(2, {"x": torch.tensor([[8.0, 8.0], [-8.0, 8.0]], dtype=torch.float64)}, {})
    point = GaussianPosterior(model, gaussian.mean, torch.zeros(3, 3, dtype=torch.float64), 0.0)
    assert ((gaussian.predict(far) - 0.5).abs() < (point.predict(far) - 0.5).abs()).all()


def test_the_noisy_unit_survives_both_tails():
    model = ProbitPerceptron(features=1)
    x = torch.tensor([[-300.0], [300.0]], dtype=torch.float64)
    data = Data(2, {"x": x}, {"y": torch.tensor([1.0, 0.0], dtype=torch.float64)})
    coef = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    trace = poutine.trace(condition(model.model, data={"coef": coef, **data.observed})).get_trace(data)
    score = trace.nodes["y"]["fn"].log_prob(data.observed["y"]).sum()
    tail = 2 * float(torch.special.log_ndtr(torch.tensor(-300.0, dtype=torch.float64)))
    assert float(score.detach()) == pytest.approx(tail, rel=1e-9)
    assert torch.autograd.grad(score, coef)[0].isfinite().all()


@pytest.mark.parametrize(("x", "y", "message"), [
    ([[1.0], [math.nan]], [0.0, 1.0], "x is nan in row 1, column 0"),
    ([[1.0], [2.0]], [0.0, 2.0], r"y is 2\.0 in row 1; it must be 0 or 1"),
    ([[1.0, 2.0]], [0.0], r"x must be \(rows, 1\)"),
])  # fmt: skip
def test_bad_rows_are_named(x, y, message):
    data = Data(len(y), {"x": torch.tensor(x)}, {"y": torch.tensor(y)})
    with pytest.raises(ValueError, match=message):
        logistic_mode.newton(LogisticRegression(features=1), data)
