"""Pairwise maximum entropy: moments, gradients three ways, entropies in their order, a recording of 15 cells."""

import math

import numpy as np
import pytest
import torch

from inference import em, mode
from inference.predict import simulate
from ppmodels.base import Data
from ppmodels.population._word_fit import WordMoments, independent, law_of, pseudo
from ppmodels.population.ising import Ising
from ppmodels.population.maximum_entropy import PairwiseMaximumEntropy, features, words
from tests.shared import shared

F64 = torch.float64
HALVES_SD = 0.005  # bits, by which divergences of random halves of 20,000 words differ


def law(neurons=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    pairs = neurons * (neurons - 1) // 2
    return PairwiseMaximumEntropy(
        torch.randn(neurons, generator=g, dtype=F64) - 1, 0.6 * torch.randn(pairs, generator=g, dtype=F64)
    )


def test_sums_over_words_are_those_written_out():
    one = law()
    every = words(6)
    score = features(every) @ torch.cat([one.bias, one.coupling])
    torch.testing.assert_close(one.exponents(), score, rtol=0, atol=1e-12)
    torch.testing.assert_close(one.score(every), score, rtol=0, atol=1e-12)
    torch.testing.assert_close(one.moments(), score.softmax(-1) @ features(every), rtol=0, atol=1e-12)
    p = score.softmax(-1)
    torch.testing.assert_close(one.entropy(), -(p * p.log()).sum(), rtol=1e-12, atol=0)


def test_the_fit_has_the_moments_of_the_words_and_is_the_top():
    torch.manual_seed(0)
    seen = law(8, seed=1).sample(5000)
    told = WordMoments.of(seen)
    x = told.maximise()
    torch.testing.assert_close(law_of(x, 8).moments(), told.mean, rtol=0, atol=1e-8)
    model = Ising.for_data(seen.reshape(10, 500, 8))
    fit = em.fit(model, Data.of(model, y=seen.reshape(10, 500, 8)), num_restarts=1)
    assert fit.info["converged"]
    torch.testing.assert_close(torch.cat([fit.draws["bias"], fit.draws["coupling"]], -1)[0, 0], x, rtol=0, atol=1e-5)
    flat = Ising.for_data(seen.reshape(10, 500, 8), bias_scale=1e4, coupling_scale=1e4)
    top = mode.fit(flat, Data.of(flat, y=seen.reshape(10, 500, 8)), num_restarts=1)
    torch.testing.assert_close(top.draws["coupling"][0, 0], x[8:], rtol=0, atol=1e-3)
    table = seen.to(torch.long) @ (2 ** torch.arange(8))
    share = torch.bincount(table, minlength=256) / 5000
    entropy = -(share[share > 0].to(F64) * share[share > 0].to(F64).log()).sum()
    alone = law_of(independent(told.mean[:8], 36), 8)
    assert alone.entropy() > law_of(x, 8).entropy() > entropy


def test_gradients_by_sums_samples_and_pseudolikelihood():
    """All three vanish at the law that made the words, to sampling error."""
    torch.manual_seed(1)
    one, number = law(), 200_000
    x = torch.cat([one.bias, one.coupling]).requires_grad_()
    seen = one.sample(number)
    chains = one.gibbs(torch.bernoulli(torch.full((20_000, 6), 0.3, dtype=F64)), 40)
    exact, data, sampled = one.moments(), features(seen), features(chains)
    assert bool(((sampled.mean(0) - exact).abs() < 4 * sampled.std(0) / len(chains) ** 0.5).all())
    assert bool(((data.mean(0) - exact).abs() < 4 * data.std(0) / number**0.5).all())
    (grad,) = torch.autograd.grad(pseudo(seen, x) / number, x)
    assert bool((grad.abs() < 8 / number**0.5).all())


def test_fits_by_pseudolikelihood_and_by_sampling_find_the_law():
    torch.manual_seed(2)
    one = law(6, seed=3)
    told, truth = WordMoments.of(one.sample(100_000)), torch.cat([one.bias, one.coupling])
    for found in (told.maximise(), told.maximise_pseudo(), told.maximise_by_sampling()):
        assert float((found - truth).abs().max()) < 0.1


def test_annealed_sums_are_the_exact_ones():
    torch.manual_seed(3)
    one = law(10, seed=2)
    value, error = one.log_partition_by_annealing(chains=500, steps=100)
    assert error < 0.05
    assert value == pytest.approx(float(one.log_partition()), abs=4 * error)


def test_many_neurons_take_the_pseudolikelihood():
    torch.manual_seed(4)
    model = Ising(neurons=25, bins=200, likelihood="pseudo")
    one = law(25, seed=5)
    y = one.gibbs(torch.zeros(2000, 25, dtype=F64), 50).reshape(10, 200, 25)
    fit = em.fit(model, Data.of(model, y=y), num_restarts=1, prior=True)
    assert fit.info["converged"]
    cosine = torch.nn.functional.cosine_similarity(fit.draws["coupling"][0, 0], one.coupling, dim=0)
    assert float(cosine) > 0.6
    with pytest.raises(ValueError, match="2 to 20 neurons; 25 need likelihood='pseudo'"):
        Ising(neurons=25)
    with pytest.raises(ValueError, match=r"2\^25 words cannot be summed"):
        one.log_partition()


def test_a_count_of_two_is_no_word():
    model = Ising()
    data, _ = simulate(model, 5, seed=1)
    data.observed["y"][1, 2, 3] = 2.0
    with pytest.raises(ValueError, match="trial 1, bin 2, neuron 3 is more than one spike"):
        em.fit(model, data)


@pytest.fixture(scope="module")
def halves():
    """Of 40,000 recorded words, three random halves to fit, and bits: entropies, and divergences from the other."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(shared("data", "maxent_toolbox", "example15.mat")) as file:
        spikes = torch.tensor(file["spikes15"][:]).to(F64)  # (40000, 15)
    return [_of_half(spikes[torch.tensor(np.random.default_rng(k).permutation(40_000))]) for k in range(3)]


def _of_half(shuffled):
    half, rest = shuffled[:20_000], shuffled[20_000:]
    model = Ising.for_data(half.reshape(20, 1000, 15))
    fit = em.fit(model, Data.of(model, y=half.reshape(20, 1000, 15)), num_restarts=1)
    pairs = model.law({name: value[0, 0] for name, value in fit.draws.items()})
    told = WordMoments.of(half)
    torch.testing.assert_close(pairs.moments(), told.mean, rtol=0, atol=1e-7)
    alone = law_of(independent(told.mean[:15], 120), 15)
    own, other = _shares_of(half), _shares_of(rest)
    return {
        "entropy": float(pairs.entropy()) / math.log(2),
        "entropy alone": float(alone.entropy()) / math.log(2),
        "entropy of the words": float(-torch.xlogy(own, own).sum()) / math.log(2),
        "divergence": _divergence(other, pairs),
        "divergence alone": _divergence(other, alone),
    }


def _shares_of(spikes):
    return torch.bincount((spikes @ (2.0 ** torch.arange(15, dtype=F64))).long(), minlength=2**15) / len(spikes)


def _divergence(share, law):
    log_p = law.exponents() - law.log_partition()
    return float((torch.xlogy(share, share) - share * log_p).sum()) / math.log(2)


def test_fifteen_cells(halves):
    """The entropies, 6.44 to 6.46 bits, that the exact fit is known to have on three random halves."""
    for bits in halves:
        assert 6.44 <= round(bits["entropy"], 2) <= 6.46
        assert bits["entropy alone"] > bits["entropy"] > bits["entropy of the words"]
        assert bits["divergence"] < bits["divergence alone"]


def test_divergences_of_fifteen_cells_scatter_about_what_is_stated(halves):
    """Halves scatter: the mean of three is compared with the stated middle, 0.107 bits, of three others."""
    found = torch.tensor([bits["divergence"] for bits in halves])
    stated = 0.107
    assert abs(float(found.mean()) - stated) < 3 * HALVES_SD * (1 / 3 + 1 / 3) ** 0.5


@pytest.mark.xfail(strict=True, reason="0.106 to 0.108 is of three halves that are not named; others differ by more")
def test_divergences_of_fifteen_cells_lie_where_they_are_stated(halves):
    assert all(0.106 <= round(bits["divergence"], 3) <= 0.108 for bits in halves)
