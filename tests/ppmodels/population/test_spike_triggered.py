import pytest
import torch

from ppmodels.population.spike_triggered import (
    spike_triggered_average,
    spike_triggered_covariance,
    whitened_average,
)

K = torch.tensor([0.6, -0.4, 0.2, 0.0, 0.5], dtype=torch.float64)


def normal(rows, seed=0):
    return torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spikes(drive, seed=1):
    return torch.poisson(drive.exp(), generator=torch.Generator().manual_seed(seed))


def test_the_average_is_the_filter_for_white_gaussian_stimuli():
    x = normal(400_000)
    y = spikes(x @ K - 1)
    assert float((spike_triggered_average(x, y) - K).abs().max()) < 0.01


def test_whitening_gives_the_filter_for_correlated_stimuli():
    mix = torch.eye(5, dtype=torch.float64) + 0.4 * torch.ones(5, 5, dtype=torch.float64).tril(-1)
    x = normal(400_000) @ mix.mT
    y = spikes(x @ K - 2)
    assert float((spike_triggered_average(x, y) - K).abs().max()) > 0.1
    assert float((whitened_average(x, y) - K).abs().max()) < 0.02


def test_direction_alone_for_other_spherical_stimuli():
    x = normal(200_000)
    x = x / x.norm(dim=1, keepdim=True) * 2.5
    average = spike_triggered_average(x, spikes(x @ K - 1))
    assert float(torch.cosine_similarity(average, K, 0)) > 0.99


def test_the_covariance_stays_the_identity_for_an_exponential_neuron():
    x = normal(400_000)
    found = spike_triggered_covariance(x, spikes(x @ K - 1))
    eye = torch.eye(5, dtype=torch.float64)
    assert float((found.covariance - eye).abs().max()) < 0.02


def test_a_quadratic_unit_is_one_outlier_along_its_filter():
    mix = torch.eye(5, dtype=torch.float64) + 0.3 * torch.ones(5, 5, dtype=torch.float64).tril(-1)
    x = normal(300_000) @ mix.mT
    unit = torch.tensor([1.0, 0.0, -1.0, 0.5, 0.0], dtype=torch.float64)
    y = torch.poisson(0.3 * (x @ unit).square(), generator=torch.Generator().manual_seed(3))
    found = spike_triggered_covariance(x, y)
    assert float(found.eigenvalues[-1]) > 2
    assert float((found.eigenvalues[:-1] - 1).abs().max()) < 0.05
    assert abs(float(torch.cosine_similarity(found.filters[-1], unit, 0))) > 0.999


def test_what_cannot_be_is_one_line():
    x, y = normal(50), torch.zeros(50, 2)
    with pytest.raises(ValueError, match="neuron 0 has no spike"):
        spike_triggered_average(x, y)
    x[3, 1] = torch.nan
    with pytest.raises(ValueError, match="bin 3, column 1"):
        spike_triggered_average(x, y + 1)
    x = torch.ones(50, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="singular; give a ridge"):
        whitened_average(x, torch.ones(50, 1))
