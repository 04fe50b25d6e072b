import math

import pytest
import torch
from sklearn.metrics import mean_poisson_deviance

from ppmodels.population.cross_validation import folds
from ppmodels.population.responses import psth, psth_r2
from ppmodels.population.scores import score
from ppmodels.population.time_rescaling import time_rescaling


def drawn(seed=0, bins=4000):
    generator = torch.Generator().manual_seed(seed)
    mean = 0.1 * torch.exp(torch.randn(2, bins, 3, generator=generator, dtype=torch.float64))
    return torch.poisson(mean, generator=generator), mean


def test_scores_are_their_formulas():
    y, mean = drawn()
    found = score(y, mean)
    flat, m = y.flatten(0, 1), mean.flatten(0, 1)
    own = torch.distributions.Poisson(m).log_prob(flat).sum(0)
    null = torch.distributions.Poisson(flat.mean(0)).log_prob(flat).sum(0)
    torch.testing.assert_close(found.log_likelihood, own)
    torch.testing.assert_close(found.bits_per_spike, (own - null) / flat.sum(0) / math.log(2))
    for n in range(3):
        deviance = len(flat) * mean_poisson_deviance(flat[:, n].numpy(), m[:, n].numpy())
        assert float(found.deviance[n]) == pytest.approx(deviance)
    torch.testing.assert_close(found.pseudo_r2, 1 - found.deviance / found.null_deviance)
    assert found.null == "mean rate of the bins scored"
    assert float(score(y, flat.mean(0).expand_as(y)).bits_per_spike.abs().max()) < 1e-9
    other = score(y, mean, null_mean=torch.full((3,), 0.3))
    assert other.null == "mean rate of the training data"
    assert bool((other.bits_per_spike > found.bits_per_spike).all())


def test_unseen_bins_and_silent_neurons():
    y, mean = drawn(bins=100)
    seen = torch.ones_like(y)
    seen[:, 50:] = 0
    torch.testing.assert_close(score(y, mean, seen=seen).deviance, score(y[:, :50], mean[:, :50]).deviance)
    y[..., 1] = 0
    silent = score(y, mean)
    assert silent.bits_per_spike.isnan().tolist() == [False, True, False]
    assert math.isfinite(silent.total_bits_per_spike)
    mean[0, 7, 2], y[0, 7, 2] = 0, 1
    with pytest.raises(ValueError, match="neuron 2, bin 7: the predicted mean is 0, of a count of 1"):
        score(y, mean)


def test_bernoulli_scores():
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(500, 2, generator=generator, dtype=torch.float64)
    y = torch.bernoulli(p, generator=generator)
    truth = torch.distributions.Bernoulli(p).log_prob(y).sum(0)
    torch.testing.assert_close(score(y, p, bernoulli=True).log_likelihood, truth)


@pytest.mark.parametrize(("bin_size", "bernoulli"), [(0.001, False), (0.01, False), (0.001, True), (0.01, True)])
def test_the_true_model_is_rejected_five_times_in_a_hundred(bin_size, bernoulli):
    """At 10 ms the plain form rejects always: the shortest intervals are missing."""
    rejected, plain, runs = 0, 0, 200
    generator = torch.Generator().manual_seed(1)
    bins = int(60 / bin_size)
    time = torch.arange(bins, dtype=torch.float64) * bin_size
    hazard = bin_size * 20 * (1 + 0.8 * torch.sin(2 * math.pi * time))
    for run in range(runs):
        if bernoulli:
            counts = torch.bernoulli(-torch.expm1(-hazard), generator=generator)
        else:
            counts = torch.poisson(hazard, generator=generator)
        rejected += time_rescaling(counts, hazard, seed=run, bernoulli=bernoulli).p_value < 0.05
        if run < 20:
            plain += time_rescaling(counts, hazard, corrected=False).p_value < 0.05
    assert 2 <= rejected <= 22  # 10 expected, 99.9% of binomials
    if bin_size == 0.01:
        assert plain == 20


def test_a_wrong_rate_is_rejected_and_too_few_spikes_are_said():
    generator = torch.Generator().manual_seed(0)
    hazard = torch.full((20_000,), 0.02, dtype=torch.float64)
    counts = torch.poisson(hazard * (1 + torch.sin(torch.arange(20_000) / 300)), generator=generator)
    assert time_rescaling(counts, hazard).p_value < 1e-3
    with pytest.raises(ValueError, match="1 spikes have no intervals"):
        time_rescaling(torch.tensor([0.0, 1, 0]), torch.ones(3))
    with pytest.raises(ValueError, match="hazard of bin 1 is nan"):
        time_rescaling(torch.ones(3), torch.tensor([1.0, math.nan, 1.0]))


def test_psth_is_a_mean_rate_in_hz():
    counts = torch.zeros(4, 50, 2)
    counts[:2, 10, 0] = 1
    rate = psth(counts, 0.01)
    assert rate.shape == (50, 2)
    assert float(rate[10, 0]) == pytest.approx(50.0)
    smooth = psth(torch.ones(4, 50, 2), 0.01, smoothing=0.03)
    torch.testing.assert_close(smooth, torch.full((50, 2), 100.0, dtype=torch.float64))
    wave = 10 + torch.sin(torch.arange(50.0))[:, None].double()
    assert float(psth_r2(wave, wave)) == 1.0
    assert float(psth_r2(wave, wave.mean(0).expand(50, 1))) == pytest.approx(0.0, abs=1e-12)
    assert bool(psth_r2(torch.ones(5, 1), torch.ones(5, 1)).isnan())


def test_folds_are_runs_that_cover_all_rows_once():
    parts = folds(23, 5)
    assert torch.equal(torch.cat(parts), torch.arange(23))
    assert {len(part) for part in parts} == {4, 5}
    with pytest.raises(ValueError, match="between two and 3 folds"):
        folds(3, 4)
