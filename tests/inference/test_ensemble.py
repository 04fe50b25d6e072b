"""Deep ensembles: members that climb, bootstrapped rows, and the mixture that they predict."""

import pytest
import torch

from inference import Unsupported, ensemble
from inference.outcomes import log_predictive, outcomes
from inference.predict import simulate
from ppmodels.regression.bnn import BayesianNeuralNetwork
from ppmodels.regression.linear import LinearRegression


def test_every_member_of_a_convex_problem_is_the_mode():
    model = LinearRegression(features=2, spread=1.0)
    data, _ = simulate(model, 50, seed=0)
    fit = ensemble.fit(model, data, num_samples=3, lr=0.1)
    assert fit.info["converged"]
    assert torch.allclose(fit.draws["coef"], model.posterior(data)["coef"].mean, atol=2e-4)
    assert (fit.trace["log_density"][-1] >= fit.trace["log_density"][0]).all()


@pytest.mark.slow
def test_bootstrapped_members_scatter_as_the_posterior_does():
    """With a flat prior and rows whose noise is as assumed, the bootstrap's covariance is the posterior's."""
    model = LinearRegression(features=1, spread=10.0)
    small = LinearRegression(features=1, spread=1.0)
    data, _ = simulate(small, 300, seed=0)
    fit = ensemble.fit(model, data, num_samples=200, bootstrap=True, lr=0.2, num_steps=1000, compile=False)
    found, truth = fit.draws["coef"][0], model.posterior(data)["coef"]
    assert float(((found.mean(0) - truth.mean) / truth.stddev).abs().max()) < 0.25
    assert float((found.std(0) / truth.stddev - 1).abs().max()) < 0.25


def test_the_prediction_is_the_members_mixture():
    model = BayesianNeuralNetwork(likelihood="categorical", classes=3, hidden=(5,))
    data, _ = simulate(model, 40, seed=0)
    fit = ensemble.fit(model, data, num_samples=4, num_steps=100)
    seen = outcomes(fit)
    each = [model.outputs({k: v[0, i] for k, v in fit.draws.items()}, data).softmax(-1) for i in range(4)]  # (4, N, C)
    assert torch.allclose(seen.location, torch.stack(each).mean(0), atol=1e-12)
    assert torch.allclose(seen.location.sum(-1), torch.ones(40, dtype=torch.float64))
    assert (seen.mutual_information > -1e-12).all()


def test_the_regression_mixture_is_the_published_one():
    """Mean of the means; variance sum (s_m^2 + mu_m^2) / M - mu^2; and the density is the mixture's.

    Source: Lakshminarayanan, Pritzel and Blundell (2017), NeurIPS, section 2.4.
    """
    model = BayesianNeuralNetwork(likelihood="heteroscedastic", hidden=(5,))
    data, _ = simulate(model, 30, seed=0)
    fit = ensemble.fit(model, data, num_samples=3, num_steps=100)
    members = [model.outputs({k: v[0, i] for k, v in fit.draws.items()}, data) for i in range(3)]
    mu, variance = (torch.stack(each) for each in zip(*((f[:, 0], f[:, 1].exp()) for f in members), strict=True))
    seen = outcomes(fit)
    torch.testing.assert_close(seen.location, mu.mean(0))
    torch.testing.assert_close(seen.total, (variance + mu**2).mean(0) - mu.mean(0) ** 2)
    density = torch.distributions.Normal(mu, variance.sqrt()).log_prob(data.observed["y"]).exp().mean(0).log()
    torch.testing.assert_close(log_predictive(fit), density)


def test_a_killed_run_goes_on_to_the_same_members(tmp_path):
    model = BayesianNeuralNetwork(hidden=(4,))
    data, _ = simulate(model, 40, seed=0)
    options = {"num_samples": 3, "batch_size": 10, "bootstrap": True, "compile": False, "seed": 2}
    whole = ensemble.fit(model, data, num_steps=600, **options)
    file = tmp_path / "run.safetensors"
    ensemble.fit(model, data, num_steps=400, checkpoint=file, **options)
    resumed = ensemble.fit(model, data, num_steps=600, checkpoint=file, **options)
    assert all(torch.equal(resumed.draws[site], value) for site, value in whole.draws.items())


def test_what_has_no_rows_is_refused():
    with pytest.raises(Unsupported, match="a plain program"):
        ensemble.fit(lambda: None, bootstrap=True)
    with pytest.raises(ValueError, match="at least 1"):
        ensemble.fit(LinearRegression(), simulate(LinearRegression(), 5)[0], num_samples=0)
