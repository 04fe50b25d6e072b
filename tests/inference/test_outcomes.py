"""Two parts of what is not known: they add up, one of them goes away with data, and both are the law's."""

import dataclasses

import pyro
import pyro.distributions as dist
import pytest
import torch

from inference import Unsupported, exact, stochastic_gradient
from inference.base import Fit
from inference.check import diagnose
from inference.check.predictions import judged
from inference.datatree import to_datatree
from inference.outcomes import log_predictive, outcomes
from inference.predict import simulate
from ppmodels.base import Data
from ppmodels.regression.bnn import BayesianNeuralNetwork
from ppmodels.regression.linear import LinearRegression

F = torch.float64


def drawn(model, data, number, seed=0):
    """A fit of prior draws: whatever they are, the identities hold."""
    torch.manual_seed(seed)
    sites = [simulate(model, data.rows, seed=i)[1] for i in range(number)]
    draws = {name: torch.stack([one[name] for one in sites]).reshape(2, -1, *sites[0][name].shape) for name in sites[0]}
    return Fit(model, (data,), {}, "mcmc", draws)


@pytest.mark.parametrize("likelihood", ["gaussian", "heteroscedastic", "categorical", "poisson"])
def test_both_parts_add_up_to_the_mixtures_variance(likelihood):
    model = BayesianNeuralNetwork(likelihood=likelihood, classes=3)
    data, _ = simulate(model, 9, seed=0)
    fit = drawn(model, data, 40)
    seen = outcomes(fit)
    assert torch.allclose(seen.aleatoric + seen.epistemic, seen.total, rtol=1e-6)
    assert torch.allclose(seen.epistemic_unbiased, seen.epistemic * 40 / 39, rtol=1e-5)
    y = torch.cat([fit.predict(seed=s)["y"].flatten(0, 1) for s in range(200)]).to(F)  # (S, N)
    if likelihood == "categorical":
        y = torch.nn.functional.one_hot(y.long(), 3).to(F)
        assert (seen.mutual_information >= 0).all()
        assert (seen.entropy <= torch.tensor(3.0).log() + 1e-6).all()
    error = 6 * y.var(0) * (y.pow(4).mean(0) / y.var(0).square() + 1).sqrt() / len(y) ** 0.5
    assert ((y.var(0) - seen.total).abs() < error + 1e-6).all()
    assert ((y.mean(0) - seen.location).abs() < 5 * y.std(0) / len(y) ** 0.5 + 1e-6).all()


def test_more_data_take_away_the_epistemic_part_alone():
    model = LinearRegression(features=1, spread=1.0)
    parts = []
    for rows in (20, 2000):
        data, _ = simulate(model, rows, seed=0)
        fit = exact.fit(model, data, num_samples=2000)
        parts.append(outcomes(fit, Data(2, {"x": torch.tensor([[0.0], [8.0]], dtype=F)})))
    assert float(parts[1].epistemic[0]) < 0.05 * float(parts[0].epistemic[0])
    assert torch.allclose(parts[0].aleatoric, parts[1].aleatoric)
    assert float(parts[0].epistemic[1]) > 10 * float(parts[0].epistemic[0]), "it grows away from the data"


def test_held_out_rows_are_scored_by_the_mixture():
    model = LinearRegression(features=1, spread=1.0)
    data, _ = simulate(model, 30, seed=0)
    test, _ = simulate(model, 5, seed=1)
    fit = exact.fit(model, data, num_samples=20_000)
    truth, design = model.posterior(data)["coef"], torch.cat([torch.ones(5, 1), test.given["x"]], 1)
    sd = ((design @ truth.covariance_matrix * design).sum(-1) + 1).sqrt()
    wanted = dist.Normal(design @ truth.mean, sd).log_prob(test.observed["y"])
    assert torch.allclose(log_predictive(fit, test), wanted, atol=0.01)


def test_chains_of_a_network_are_judged_by_what_they_predict():
    """Two chains at the same function, hidden units swapped: weights disagree, predictions do not."""
    model = BayesianNeuralNetwork(hidden=(2,), noise=0.5)
    data, truth = simulate(model, 30, seed=0)
    noise = 0.01 * torch.randn(2, 200, 1, generator=torch.Generator().manual_seed(0))
    draws = {name: value.expand(2, 200, *value.shape).clone() for name, value in truth.items()}
    draws["output.bias"] = draws["output.bias"] + noise
    for name, axis in (("hidden.weight", 1), ("hidden.bias", 1), ("output.weight", 2)):
        draws[name][1] = draws[name][1].flip(axis)
    fit = Fit(model, (data,), {}, "mcmc", draws, info={"num_warmup": 100})
    found = judged(fit, to_datatree(fit, prior=0, log_likelihood=False)["posterior"].to_dataset())
    assert list(found) == ["predicted y"]
    assert found["predicted y"].dims[:2] == ("chain", "draw")
    assert not [f for f in diagnose(fit).findings if "R-hat" in f.sentence]
    moved = dataclasses.replace(
        fit, draws={**draws, "output.bias": draws["output.bias"] + torch.arange(2.0)[:, None, None]}
    )
    (worst,) = (f for f in diagnose(moved).findings if "R-hat" in f.sentence)
    assert worst.site.startswith("predicted y[")
    assert "(half of 30 are below" in worst.sentence
    assert "separate modes (1 near" in worst.sentence
    assert "average over more chains" in worst.sentence


def test_a_plain_program_has_outcomes_too():
    def program(x, y=None):
        slope = pyro.sample("slope", dist.Normal(torch.zeros((), dtype=F), 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(slope * x, 0.5), obs=y)

    x = torch.linspace(-1, 1, 20, dtype=F)
    fit = stochastic_gradient.fit(program, x, 0.5 * x, num_samples=20, num_warmup=50, num_chains=2, compile=False)
    seen = outcomes(fit)
    assert seen.mean.shape == (2, 20, 20)
    assert torch.allclose(seen.aleatoric, torch.full((20,), 0.25, dtype=F))
    with pytest.raises(Unsupported, match="has no classes"):
        _ = seen.entropy
    with pytest.raises(ValueError, match="no observed site 'z'"):
        outcomes(fit, site="z")
    with pytest.raises(TypeError, match="no `data` to replace"):
        outcomes(fit, Data(1))
