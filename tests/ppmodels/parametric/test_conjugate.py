"""Conjugate posteriors and evidences by formula, against quadrature, against maximum likelihood and each other."""

import math

import pytest
import torch
from torch.distributions import Bernoulli, Exponential, Poisson

from inference import exact, mode
from inference.predict import simulate
from ppmodels.base import Data
from ppmodels.parametric import continuous, discrete
from ppmodels.parametric.conjugate import ConjugateFamily
from ppmodels.parametric.estimate import maximum_likelihood

pytestmark = pytest.mark.usefixtures("double_precision")
LAWS = {"poisson": Poisson, "exponential": Exponential, "bernoulli": Bernoulli}
FAMILIES = {"poisson": discrete.Poisson, "exponential": continuous.Exponential, "bernoulli": discrete.Bernoulli}


def data_of(law, rows=12):
    model = ConjugateFamily(law=law, shape=2.5, rate=1.5, center=0.4, strength=0.7)
    y = simulate(model, rows, seed=3)[0].observed["y"].double()
    return model, Data(rows, observed={"y": y})


@pytest.mark.parametrize("law", LAWS)
def test_evidence_and_posterior_are_those_of_quadrature(law):
    model, data = data_of(law)
    y = data.observed["y"]
    grid = torch.linspace(1e-6, 1 - 1e-6 if law == "bernoulli" else 40, 200_001)
    prior = torch.distributions.Beta if law == "bernoulli" else torch.distributions.Gamma
    joint = prior(2.5, 1.5).log_prob(grid) + LAWS[law](grid[:, None]).log_prob(y).sum(-1)
    evidence = torch.trapezoid(joint.exp(), grid)
    assert float(model.log_evidence(data)) == pytest.approx(float(evidence.log()), abs=1e-6)
    posterior = model.posterior(data)["parameter"]
    mean = torch.trapezoid(joint.exp() * grid, grid) / evidence
    assert float(posterior.mean) == pytest.approx(float(mean), abs=1e-6)
    torch.testing.assert_close(
        posterior.log_prob(grid[5000:9000]), (joint - evidence.log())[5000:9000], atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("law", [*LAWS, "normal"])
def test_evidence_is_one_row_after_another_and_draws_are_the_posteriors(law):
    model, data = data_of(law)
    y = data.observed["y"]
    whole = model.log_evidence(data)
    first = Data(5, observed={"y": y[:5]})
    a, b, center, kappa = (float(v) for v in model._updated(model.sums(first)))
    rest = ConjugateFamily(law=law, shape=a, rate=b, center=center, strength=kappa)
    parts = model.log_evidence(first) + rest.log_evidence(Data(7, observed={"y": y[5:]}))
    assert float(parts) == pytest.approx(float(whole), abs=1e-9)
    fit = exact.fit(model, data, num_samples=4000)
    assert fit.info["log_evidence"] == pytest.approx(float(whole))
    for name, draws in fit.draws.items():
        law_of = model.posterior(data)[name]
        mean = law_of.mean if name != "loc" else center_of(model, data)
        assert abs(float(draws.mean() - mean)) < 4.5 * float(draws.std()) / math.sqrt(4000)


def center_of(model, data):
    return float(model._updated(model.sums(data))[2])


@pytest.mark.parametrize("law", LAWS)
def test_without_the_prior_the_mode_is_the_familys_maximum(law):
    model, data = data_of(law, 40)
    fit, theirs = mode.fit(model, data, prior=False), maximum_likelihood(FAMILIES[law](), data.observed["y"])
    assert float(fit.draws["parameter"]) == pytest.approx(float(theirs.theta[0]), abs=1e-6)
    assert float(fit.standard_errors()["parameter"]) == pytest.approx(float(theirs.standard_errors()[0]), rel=1e-5)


def test_bad_fields_are_named():
    with pytest.raises(ValueError, match="law must be poisson"):
        ConjugateFamily(law="gauss")
    with pytest.raises(ValueError, match="must be positive and finite"):
        ConjugateFamily(rate=0.0)
