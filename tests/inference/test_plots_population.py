"""Pictures of populations show the draws that they are given: medians, bands, gains, signs, distances, spikes."""

import numpy as np
import pytest
import torch
import xarray as xr

from inference import Unsupported
from inference.plots.population import couplings, filters, raster, time_rescaling

LAG = np.array([0.005, 0.01, 0.015])
NAMES = ["a", "b"]


@pytest.fixture(scope="module")
def tree():
    """Two neurons: b is driven by a for sure, a is not known to be driven by b."""
    generator = np.random.default_rng(0)
    history = -1.0 + 0.1 * generator.standard_normal((1, 400, 2, 3))
    coupling = 0.1 * generator.standard_normal((1, 400, 2, 2, 3))
    coupling[:, :, 1, 0] += 1.0
    axes = {"post": NAMES, "pre": NAMES, "lag": LAG}
    posterior = {
        "history_filter": (("chain", "draw", "post", "lag"), history),
        "coupling_filter": (("chain", "draw", "post", "pre", "lag"), coupling),
    }
    return xr.DataTree.from_dict({"posterior": xr.Dataset(posterior, coords=axes)})


def test_filters_are_medians_in_their_bands_over_milliseconds(tree):
    figure = filters(tree, prob=0.9)
    axes = [axis for axis in figure.axes if axis.lines]
    assert [axis.get_title() for axis in axes] == ["neuron a", "neuron b"]
    draws = tree["posterior"]["history_filter"].values[0, :, 0]  # (draw, lag)
    line = axes[0].lines[0]
    np.testing.assert_allclose(line.get_xdata(), [5, 10, 15])
    np.testing.assert_allclose(line.get_ydata(), np.median(draws, 0))
    (band,) = axes[0].collections
    edges = band.get_paths()[0].vertices[:, 1]
    assert edges.min() == pytest.approx(np.quantile(draws, 0.05, 0).min())
    assert edges.max() == pytest.approx(np.quantile(draws, 0.95, 0).max())
    assert axes[0].get_ylabel() == "log gain"
    assert axes[0].get_xlabel() == "lag (ms)"


def test_the_right_axis_says_by_how_much_a_spike_multiplies(tree):
    figure = filters(tree)
    figure.canvas.draw()
    left = next(axis for axis in figure.axes if axis.lines)
    (right,) = left.child_axes
    np.testing.assert_allclose(right.get_ylim(), np.exp(left.get_ylim()))
    assert {0.5, 1.0} <= set(np.round(right.get_yticks(), 6))
    assert not filters(tree, gain=False).axes[0].child_axes


def test_lines_of_coupling_filters_are_the_senders(tree):
    axes = [axis for axis in filters(tree, "coupling_filter").axes if axis.lines]
    assert axes[1].lines[0].get_label() == "from a"
    np.testing.assert_allclose(axes[1].lines[0].get_ydata(), 1.0, atol=0.05)
    with pytest.raises(Unsupported, match="holds no stimulus_filter"):
        filters(tree, "stimulus_filter")


def test_the_coupling_matrix_marks_signs_that_are_sure(tree):
    left, right, *_ = couplings(tree).axes
    sums = tree["posterior"]["coupling_filter"].values[0].sum(-1)  # (draw, post, pre)
    shown = np.ma.filled(left.images[0].get_array(), np.nan)
    assert shown[1, 0] == pytest.approx(sums[:, 1, 0].mean())
    assert np.isnan(shown.diagonal()).all()
    assert np.ma.filled(right.images[0].get_array(), np.nan)[0, 1] == pytest.approx((sums[:, 0, 1] > 0).mean())
    (dots,) = left.collections
    assert dots.get_offsets().tolist() == [[0.0, 1.0]]  # from a, onto b
    assert (left.get_xlabel(), left.get_ylabel()) == ("from neuron", "onto neuron")


def test_the_ks_plot_tells_each_model_s_distance():
    even = (torch.arange(100) + 0.5) / 100
    (axis,) = time_rescaling({"true": even, "wrong": even.square()}).axes
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == ["95% band, 100 intervals", "true, D = 0.005", "wrong, D = 0.255"]


def test_the_raster_has_every_spike_above_its_rate():
    counts, rate = np.zeros((1, 50, 2)), np.full((1, 50, 2), 20.0)
    counts[0, [3, 20], 1] = 1
    figure = raster(counts, rate, 0.01, names=NAMES)
    first, second = figure.axes[:2]
    assert [axis.get_ylabel() for axis in (first, second)] == NAMES
    assert [segment[0][0] for segment in second.collections[0].get_segments()] == pytest.approx([0.03, 0.2])
    assert not len(first.collections[0].get_segments())
    np.testing.assert_allclose(second.lines[0].get_ydata(), 20.0)
    assert second.get_xlabel() == "time in the trial (s)"
