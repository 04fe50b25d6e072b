"""Pictures of predictions along one input: a panel a fit, bands that are the two parts."""

import numpy as np
import pytest
import torch

from inference import plots
from inference.base import Fit
from inference.outcomes import outcomes
from inference.predict import simulate
from ppmodels.base import Data
from ppmodels.regression.bnn import BayesianNeuralNetwork


def drawn(likelihood):
    model = BayesianNeuralNetwork(likelihood=likelihood, classes=3)
    data, _ = simulate(model, 12, seed=0)
    sites = [simulate(model, 12, seed=i)[1] for i in range(20)]
    return Fit(model, (data,), {}, "mcmc", {n: torch.stack([one[n] for one in sites])[None] for n in sites[0]})


@pytest.mark.parametrize("likelihood", ["gaussian", "categorical"])
def test_bands_are_the_parts(likelihood):
    place = torch.linspace(-3, 3, 25, dtype=torch.float64)
    grid, fits = Data(25, {"x": place[:, None]}), {"one": drawn(likelihood), "other": drawn(likelihood)}
    figure = plots.bands(fits, grid, place, "dose")
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title(loc="left") for axis in shown] == ["one", "other"]
    assert shown[0].get_xlabel() == "dose"
    seen = outcomes(fits["one"], grid)
    mean = seen.location if likelihood == "gaussian" else seen.location[:, 0]
    np.testing.assert_allclose(shown[0].lines[0].get_ydata(), mean)
    if likelihood == "gaussian":
        edge = shown[0].collections[1].get_paths()[0].vertices[:, 1]
        np.testing.assert_allclose(edge.max(), float((mean + 2 * seen.epistemic.sqrt()).max()))
        assert len(shown[0].lines) == 2, "mean and data"
    else:
        assert len(shown[0].lines) == 3, "a line a class"
