import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ppmodels.population.binning import Counts, bin_spikes
from ppmodels.population.glm import CoupledGLM
from ppmodels.population.loading import epochs_of, spike_times
from tests.shared import shared


@given(st.integers(1, 40), st.sampled_from([0.001, 0.005, 0.01, 0.1, 1 / 120]), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_bin_counts_sum_to_the_spikes_inside(bins, bin_size, seed):
    generator = np.random.default_rng(seed)
    start, end = 3.7, 3.7 + bins * bin_size
    inside = np.sort(start + bin_size * (generator.integers(0, bins, 50) + generator.random(50) * 0.98 + 0.01))
    spikes = np.concatenate([[start - 5.0, start - bin_size], inside, [end + 0.5 * bin_size, end + 9]])
    made = bin_spikes({"a": spikes, "b": []}, bin_size, [(start, end)])
    assert made.trials[0].shape == (bins, 2)
    assert made.totals.tolist() == [50, 0]
    assert made.outside == (4, 0)


def test_times_on_edges_are_counted_once():
    edges = np.arange(1000) * 0.1  # 0.30000000000000004 and its like
    made = bin_spikes([edges], 0.1)
    assert made.totals.tolist() == [1000]
    assert made.trials[0][:, 0].tolist() == [1.0] * 1000
    shifted = bin_spikes([edges + 0.7], 0.1, [(0.7, 100.7)])
    assert shifted.trials[0][:, 0].tolist() == [1.0] * 1000


def test_epochs_are_trials_and_lags_never_cross_them():
    times = {"a": np.array([0.05, 0.95, 2.05, 2.55]), "b": np.array([0.15])}
    made = bin_spikes(times, 0.1, [(0.0, 1.0), (2.0, 3.0)])
    assert [len(trial) for trial in made.trials] == [10, 10]
    model = CoupledGLM(2, 0, 0.1, stimulus=(0, 0.0), history=(3, 0.3), coupling=(3, 0.3), basis="raw")
    whole = model.data(made, warm_up=False)
    assert float(whole.given["past"][1].sum()) == 0  # the spike at 0.95 s is not the past of the second epoch
    data = model.data(made)
    assert torch.equal(data.given["past"][1], made.trials[1][:3])
    assert data.observed["counts"].shape == (2, 7, 2)
    joined = model.data(torch.cat(made.trials)[None], warm_up=False)  # as if there were no gap
    law = model.population(model_theta(model), whole)
    apart = law.total_drive(whole.observed["counts"])
    law = model.population(model_theta(model), joined)
    together = law.total_drive(joined.observed["counts"])[0]
    torch.testing.assert_close(apart[0], together[:10])
    assert not torch.allclose(apart[1][:3], together[10:13])
    torch.testing.assert_close(apart[1][3:], together[13:])


def model_theta(model):
    ones = torch.ones(1, dtype=torch.float64)
    n = model.neurons
    return {
        "baseline": ones.expand(n),
        "history_weight": ones.expand(n, 3),
        "coupling_weight": ones.expand(n, n - 1, 3),
    }


@pytest.mark.parametrize(
    ("spikes", "options", "said"),
    [
        ({"x": [0.2, 0.1]}, {}, r"neuron x: spike times are not sorted: spike 1 at 0.1 s comes after one at 0.2 s"),
        ({"x": [0.1, np.nan]}, {}, r"neuron x: spike 1 has the time nan"),
        ({"x": [0.1]}, {"epochs": [(0, 1), (0.5, 2)]}, r"epochs 0 and 1 overlap: one ends at 1 s, one starts at 0.5 s"),
        ({"x": [0.1]}, {"epochs": [(1, 1)]}, r"epoch 0, from 1 to 1 s, has no bin"),
        ({"x": [0.1]}, {"neurons": ["y"]}, r"no neuron 'y'; there are: x"),
        ({"x": [0.1]}, {"bin_size": 0}, r"bin_size must be positive"),
    ],
)
def test_wrong_spikes_are_one_line_that_names_them(spikes, options, said):
    with pytest.raises(ValueError, match=said) as error:
        bin_spikes(spikes, **{"bin_size": 0.01, **options})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("value", "said"), [(0.5, "no whole number"), (-1, "negative"), (float("nan"), "no number")])
def test_wrong_counts_name_neuron_bin_and_trial(value, said):
    counts = torch.zeros(2, 5, 3)
    counts[1, 4, 2] = value
    with pytest.raises(ValueError, match=rf"neuron c, bin 4 of trial 1: the count .* is {said}"):
        Counts.of(counts, 0.01, "abc")


def test_silent_neurons_and_dead_trials_are_said(caplog):
    counts = torch.ones(3, 5, 2)
    counts[:, :, 1] = 0
    counts[2] = 0
    Counts.of(counts, 0.01, ("left", "right"))
    assert "neuron right has no spikes in 15 bins" in caplog.text
    assert "no neuron spikes in trial 2" in caplog.text


def test_wrong_stimuli_and_counts_for_the_model_are_one_line():
    model = CoupledGLM(2, 1, observation="bernoulli")
    counts, stimulus = torch.zeros(40, 2), torch.zeros(40)
    counts[7, 1], stimulus[9] = 2, float("nan")
    with pytest.raises(ValueError, match="neuron 1, bin 7 of trial 0: 2 spikes; a Bernoulli bin holds one"):
        model.data(counts, stimulus)
    with pytest.raises(ValueError, match="stimulus 0 in bin 9 of trial 0 is nan"):
        model.data(counts.clamp(max=1), stimulus)
    with pytest.raises(ValueError, match="1 stimuli, and none is given"):
        model.data(counts.clamp(max=1))
    with pytest.raises(ValueError, match=r"of trial 0 is \(time, stimulus\) = \(40, 1\); got \(39, 1\)"):
        model.data([counts.clamp(max=1)], [torch.zeros(39)])
    with pytest.raises(ValueError, match="the model has 2 neurons, the counts 3"):
        model.data(torch.zeros(40, 3), torch.zeros(40))
    with pytest.raises(ValueError, match="no trial is longer than the window of 5 bins"):
        model.data(torch.zeros(5, 2), torch.zeros(5))


def test_blocks_of_a_recording_are_the_recording():
    generator = torch.Generator().manual_seed(0)
    counts = torch.poisson(torch.full((103, 2), 0.3, dtype=torch.float64), generator=generator)
    stimulus = torch.randn(103, 1, generator=generator, dtype=torch.float64)
    model = CoupledGLM()
    theta = {name: value for name, value in _draw(model).items() if "filter" not in name}
    one, many = model.data(counts, stimulus), model.data(counts, stimulus, block=10)
    assert many.observed["counts"].shape == (10, 10, 2)
    whole, pieces = model.population(theta, one), model.population(theta, many)
    torch.testing.assert_close(
        whole.log_prob(one.observed["counts"]).sum(), pieces.log_prob(many.observed["counts"]).sum()
    )


def _draw(model):
    from inference.predict import simulate

    return simulate(model, 1, seed=4)[1]


@pytest.mark.filterwarnings("ignore")
def test_pynapple_groups_and_epochs_are_read():
    nap = pytest.importorskip("pynapple")
    group = nap.TsGroup({3: nap.Ts(t=np.array([0.1, 0.2, 1.4])), 7: nap.Ts(t=np.array([0.55]))})
    epochs = nap.IntervalSet(start=[0.0, 1.0], end=[0.5, 1.5])
    made = bin_spikes(group, 0.1, epochs)
    assert made.neurons == ("3", "7")
    assert made.totals.tolist() == [3, 0]
    assert made.outside == (0, 1)
    assert epochs_of(epochs) == [(0.0, 0.5), (1.0, 1.5)]


@pytest.mark.filterwarnings("ignore")
def test_an_nwb_file_is_read_whole():
    pytest.importorskip("pynwb")
    path = shared("data", "pynapple_nwb", "A8604-211122.nwb")
    times = spike_times(path)
    assert len(times) == 3
    assert sum(map(len, times.values())) == 21354
    made = bin_spikes(path, 0.01)
    assert int(made.totals.sum()) == 21354
    assert made.outside == (0, 0, 0)


def test_a_file_without_units_says_so(tmp_path):
    with pytest.raises((ValueError, ImportError), match=r"there is no file|needs pynwb"):
        spike_times(tmp_path / "none.nwb")
    with pytest.raises(TypeError, match="got int"):
        spike_times(3)
