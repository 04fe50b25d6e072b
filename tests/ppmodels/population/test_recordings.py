"""Published numbers of open recordings: Kramer and Eden (2016), Case Studies in Neural Data Analysis."""

import math

import numpy as np
import pytest
import scipy.io
import torch

from inference import laplace, mcmc, mode
from inference.parts import in_parts
from ppmodels.base import Data
from ppmodels.population.binning import bin_spikes
from ppmodels.population.cross_validation import cross_validate, expected
from ppmodels.population.glm import CoupledGLM
from ppmodels.population.scores import score
from ppmodels.population.time_rescaling import time_rescaling
from tests.shared import shared

FLAT = {"scale": 1e6, "spread": 1e6, "rate": 1.0}
ALONE = {"history": (0, 0.0), "coupling": (0, 0.0), "stimulus": (0, 0.0)}


def place_cell(columns):
    """Model and data: counts in 1 ms bins, and position in metres, its square and the direction of running."""
    file = scipy.io.loadmat(shared("data", "kramer_eden_case_studies") / "spikes-1.mat")
    time, x = file["t"].ravel(), file["X"].ravel()
    counts = bin_spikes({"place": file["spiketimes"].ravel()}, 0.001, [(time[0] - 0.0005, time[-1] + 0.0005)])
    assert int(counts.totals) == 220
    there = {"x": x / 100, "x^2": (x / 100) ** 2, "direction": np.append(np.diff(x) > 0, False)}
    stimulus = np.stack([there[name] for name in columns], 1).astype(float)
    model = CoupledGLM(1, len(columns), 0.001, **ALONE, **FLAT)
    return model, model.data(counts, stimulus)


def scored(model, data, draws):
    mean = expected(model, draws, data)
    return mean, score(data.observed["counts"], mean, seen=data.given["seen"])


def aic(model, data, draws):
    _, found = scored(model, data, draws)
    size = sum(value[0, 0].numel() for name, value in draws.items() if "filter" not in name)
    return 2 * size - 2 * float(found.log_likelihood.sum())


@pytest.mark.parametrize(
    ("columns", "published", "position"),
    [(["x"], 3344.790862938608, (0.012943,)), (["x", "x^2"], 2708.7763622920475, (0.690114, -0.005463))],
)
def test_place_cell_as_published(columns, published, position):
    model, data = place_cell(columns)
    fit = mode.fit(model, data)
    assert fit.info["converged"]
    assert aic(model, data, fit.draws) == pytest.approx(published, abs=1e-5)
    weights = fit.draws["stimulus_weight"].flatten()
    for found, told, unit in zip(weights.tolist(), position, (100, 100**2), strict=False):
        assert found / unit == pytest.approx(told, abs=1e-6)


def test_direction_mends_what_time_rescaling_finds():
    model, data = place_cell(["x", "x^2"])
    mean, _ = scored(model, data, mode.fit(model, data).draws)
    without = time_rescaling(data.observed["counts"], mean, data.given["seen"])
    assert without.statistic == pytest.approx(0.290, abs=0.01)
    assert not without.passes
    model, data = place_cell(["x", "x^2", "direction"])
    fit = laplace.fit(model, data, num_samples=50)
    (low, high) = (2.55496, 3.99561)  # published, plus and minus two standard errors
    by = fit.draws["stimulus_weight"][0, :, 0, 2, 0]
    assert mode.fit(model, data).draws["stimulus_weight"].flatten()[2].item() == pytest.approx(3.275, abs=1e-3)
    assert by.std().item() == pytest.approx((high - low) / 4, rel=0.3)
    mean, _ = scored(model, data, mode.fit(model, data).draws)
    with_it = time_rescaling(data.observed["counts"], mean, data.given["seen"])
    assert with_it.statistic == pytest.approx(0.074, abs=0.01)
    assert with_it.passes


@pytest.mark.slow
def test_the_posterior_under_flat_priors_has_the_mle_for_its_mean():
    model, data = place_cell(["x", "x^2", "direction"])
    at = mode.fit(model, data).draws
    fit = in_parts(mcmc.fit, model, data, seed=1, num_chains=16, num_warmup=100, num_samples=200)
    for name in ("baseline", "stimulus_weight"):
        draws = fit.draws[name].flatten(0, 1)
        away = (draws.mean(0) - at[name][0, 0]) / draws.std(0)
        skew = ((draws - draws.mean(0)) / draws.std(0)).pow(3).mean(0) / 2  # by which mean and mode differ
        assert float((away.abs() - skew.abs()).max()) < 0.1


def subthalamic(history=0, by_movement=False):
    """50 trials of 2 s in 1 ms bins, the second half of each moving, to the left or to the right."""
    file = scipy.io.loadmat(shared("data", "kramer_eden_case_studies") / "10_spikes-1.mat")
    counts = torch.as_tensor(file["train"].astype(float))[..., None]  # (50, 2000, 1)
    moving = torch.as_tensor((file["t"].ravel() >= 0).astype(float)).expand(50, 2000)
    direction = torch.as_tensor(file["direction"].astype(float)).expand(50, 2000)
    columns = [moving, direction]
    if by_movement:
        past = torch.cat([torch.zeros(50, 70), counts[..., 0]], 1)
        columns += [past[:, 70 - lag : -lag] * moving for lag in range(1, 71)]
    own = {"history": (70, 0.07) if history else (0, 0.0), "stimulus": (0, 0.0), "coupling": (0, 0.0)}
    model = CoupledGLM(1, len(columns), 0.001, **own, basis="raw", **FLAT)
    return model, model.data(counts, torch.stack(columns, -1))


def test_subthalamic_neuron_as_published():
    model, data = subthalamic()
    fit = laplace.fit(model, data, num_samples=4000, seed=2)
    _, found = scored(model, data, mode.fit(model, data).draws)
    assert float(found.log_likelihood) == pytest.approx(-18843, abs=0.6)
    flat = torch.cat([fit.draws["baseline"][0] - math.log(1000), fit.draws["stimulus_weight"][0, :, 0, :, 0]], 1)
    torch.testing.assert_close(flat.mean(0), torch.tensor([-3.0228, 0.3441, -0.5090]).double(), atol=2e-3, rtol=0)
    torch.testing.assert_close(flat.std(0), torch.tensor([0.025, 0.030, 0.030]).double(), rtol=0.05, atol=0)


@pytest.mark.slow
def test_subthalamic_errors_by_mcmc():
    model, data = subthalamic()
    fit = in_parts(mcmc.fit, model, data, seed=1, num_chains=16, num_warmup=100, num_samples=250)
    flat = torch.cat([fit.draws["baseline"], fit.draws["stimulus_weight"][:, :, 0, :, 0]], 2).flatten(0, 1)
    torch.testing.assert_close(flat.std(0), torch.tensor([0.025, 0.030, 0.030]).double(), rtol=0.05, atol=0)


def test_history_by_movement_as_published():
    model, data = subthalamic(history=70, by_movement=True)
    seen = data.given["seen"].clone()
    seen[:, 0] = False  # the published sum begins a bin after the first that has all its history
    data = Data.of(model, **{**data.given, "seen": seen}, **data.observed)
    fit = mode.fit(model, data)
    mean, found = scored(model, data, fit.draws)
    assert sum(value[0, 0].numel() for name, value in fit.draws.items() if "filter" not in name) == 143
    assert float(found.log_likelihood) == pytest.approx(-17889.3, abs=0.1)
    with_it = time_rescaling(data.observed["counts"], mean, data.given["seen"])
    model, data = subthalamic()
    mean, _ = scored(model, data, mode.fit(model, data).draws)
    without = time_rescaling(data.observed["counts"], mean, data.given["seen"])
    assert not without.passes
    assert with_it.statistic < without.statistic


def test_history_predicts_held_out_trials():
    """In every block: the spikes of ten trials are told better by filters learned on the other forty."""
    model, data = subthalamic()
    alone, plain = cross_validate(mode.fit, model, data, 5)
    model, data = subthalamic(history=70)
    prior = {"scale": 1.0, "spread": 5.0, "rate": 50.0, "filters": "smooth"}
    model = CoupledGLM(1, 2, 0.001, (0, 0.0), (70, 0.07), (0, 0.0), "raw", **prior)
    both, bits = cross_validate(mode.fit, model, data, 5)
    assert both.null == "mean rate of the training data"
    assert both.total_bits_per_spike > alone.total_bits_per_spike
    assert len(bits) == 5
    for with_it, without in zip(bits, plain, strict=True):
        assert float(with_it) > float(without)
