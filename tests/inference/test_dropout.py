"""Monte Carlo dropout as a posterior over weights: its moments, its rescaling, what cannot drop."""

import pytest
import torch

from inference import Unsupported, dropout
from inference.base import fresh, joint
from inference.density import Density
from inference.outcomes import outcomes
from inference.predict import simulate
from ppmodels.base import Data
from ppmodels.regression.bnn import BayesianNeuralNetwork
from ppmodels.regression.linear import LinearRegression


def linear(num_samples=40_000):
    """A linear network whose inputs drop."""
    model = BayesianNeuralNetwork(features=3, hidden=(), noise=0.5)
    data, _ = simulate(model, 60, seed=0)
    options = {"num_steps": 400, "compile": False, "num_samples": num_samples}
    return dropout.fit(model, data, rate=0.3, inputs=True, **options), model


def test_a_linear_networks_moments_are_the_formulas():
    """Mean (1 - p) sum lambda x, variance p (1 - p) sum lambda^2 x^2; at test, every unit there, times 1 - p."""
    fit, _ = linear()
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    lam = {site.name: fit.state["loc"][site.start : site.stop] for site in sites(fit)}
    slopes, bias = lam["output.weight"], lam["output.bias"]
    grid = Data(7, {"x": x.double()})
    seen = outcomes(fit, grid)
    mean = 0.7 * (x.double() * slopes).sum(-1) + bias
    variance = 0.3 * 0.7 * (x.double() * slopes).square().sum(-1)
    assert torch.allclose(seen.location, mean, atol=4 * float(variance.max() / 40_000) ** 0.5)
    assert torch.allclose(seen.epistemic, variance, rtol=0.05)
    at_once = outcomes(dropout.rescaled(fit), grid)
    assert torch.allclose(at_once.location, mean, atol=1e-10)


def sites(fit):
    with fresh(fit.model, fit.args):
        return Density.of(joint(fit.model, fit.args, {}), fit.args, {}).layout.sites


def test_a_unit_drops_with_all_its_weights():
    model = BayesianNeuralNetwork(features=2, hidden=(6, 5))
    data, _ = simulate(model, 30, seed=0)
    fit = dropout.fit(model, data, rate=0.5, num_steps=50, num_samples=300, compile=False)
    for name, units in (("hidden_2.weight", 6), ("output.weight", 5)):
        gone = fit.draws[name][0] == 0  # (S, O, I)
        assert (gone.all(1) == gone.any(1)).all()
        assert 0.4 < float(gone[:, 0].double().mean()) < 0.6
        assert gone.shape[2] == units
    assert (fit.draws["hidden_1.weight"] != 0).all()
    assert (fit.draws["noise"] == fit.draws["noise"][0, 0]).all()


def test_what_has_no_units_is_refused():
    data, _ = simulate(LinearRegression(), 10)
    with pytest.raises(Unsupported, match="has no network"):
        dropout.fit(LinearRegression(), data)
    flat = BayesianNeuralNetwork(hidden=())
    with pytest.raises(Unsupported, match="no hidden units to drop; say inputs=True"):
        dropout.fit(flat, simulate(flat, 10)[0])
    with pytest.raises(ValueError, match=r"in \[0, 1\)"):
        dropout.fit(flat, simulate(flat, 10)[0], rate=1.0)
