"""Pictures of what happens inside trials, from any model that has a path or states."""

import numpy as np
import pytest
import torch

from inference import Unsupported, em, plots
from inference.predict import simulate
from ppmodels.base import Data
from ppmodels.population.gpfa import GaussianProcessFactorAnalysis
from ppmodels.population.hmm import HiddenMarkovModel


@pytest.fixture(scope="module")
def gpfa():
    model = GaussianProcessFactorAnalysis(bins=12, gaps=True)
    data, _ = simulate(model, 8, seed=1)
    data.observed["y"][1, 8:] = torch.nan
    coords = {"trial": list("abcdefgh"), "time": list(np.arange(12) * 0.5), "neuron": list(range(4))}
    data = Data(8, {}, data.observed, coords=coords)
    return em.fit(model, data, num_restarts=1, num_steps=6), data


def test_trajectories_are_the_posterior_means_in_seconds_until_the_trial_ends(gpfa):
    fit, data = gpfa
    figure = plots.trajectories(fit, trials=(0, 1))
    axes = [axis for axis in figure.axes if axis.has_data()]
    assert [axis.get_ylabel() for axis in axes] == ["latent 0", "latent 1"]
    assert axes[-1].get_xlabel() == "time (s)"
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["trial a", "trial b"]
    mean = fit.model.path({k: v[0, 0] for k, v in fit.draws.items()}, data).mean
    first, second = axes[0].lines
    np.testing.assert_allclose(first.get_ydata(), mean[0, :, 0].numpy())
    np.testing.assert_allclose(first.get_xdata(), np.arange(12) * 0.5)
    assert np.isnan(second.get_ydata()[8:]).all()
    assert np.isfinite(second.get_ydata()[:8]).all()


def test_orbits_have_a_line_and_a_dot_a_trial(gpfa):
    (axis,) = plots.orbits(gpfa[0], trials=(0, 2, 3)).axes
    assert len(axis.lines) == 6
    with pytest.raises(Unsupported, match="there is no latent 2; the path has 2"):
        plots.orbits(gpfa[0], latents=(0, 2))


def test_states_fill_every_bin():
    model = HiddenMarkovModel()
    data, _ = simulate(model, 10, seed=1)
    fit = em.fit(model, data, num_restarts=1)
    axes = [axis for axis in plots.states(fit, trials=(0, 4)).axes if axis.has_data()]
    assert [axis.get_ylabel() for axis in axes] == ["0", "4"]
    tops = axes[0].collections[-1].get_paths()[0].vertices[:, 1]
    assert tops.max() == pytest.approx(1.0)
    with pytest.raises(Unsupported, match="HiddenMarkovModel has no path to draw"):
        plots.trajectories(fit)
