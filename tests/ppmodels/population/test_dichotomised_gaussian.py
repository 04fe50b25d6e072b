"""Binary words with given moments: the chance of two spikes against scipy, moments matched, samples that have them."""

import pytest
import torch
from scipy.stats import multivariate_normal

from ppmodels.population.dichotomised_gaussian import DichotomisedGaussian, both_fire

F64 = torch.float64


@pytest.mark.parametrize("correlation", [-0.9, -0.3, 0.0, 0.5, 0.95])
def test_the_chance_of_two_spikes_is_the_orthant(correlation):
    for a, b in ((-1.5, -0.2), (0.3, -2.0), (0.0, 0.0)):
        exact = multivariate_normal.cdf([a, b], cov=[[1, correlation], [correlation, 1]], abseps=1e-12, releps=1e-12)
        found = both_fire(*(torch.tensor([x], dtype=F64) for x in (a, b, correlation)))
        assert float(found) == pytest.approx(exact, abs=1e-8)


def test_moments_are_matched_and_samples_have_them():
    torch.manual_seed(0)
    mean = torch.tensor([0.05, 0.2, 0.1, 0.5], dtype=F64)
    sd = (mean * (1 - mean)).sqrt()
    cov = 0.15 * sd[:, None] * sd
    cov[0, 3] = cov[3, 0] = -0.1 * sd[0] * sd[3]
    law = DichotomisedGaussian.matching(mean, cov)
    found, spread = law.moments()
    off = ~torch.eye(4, dtype=torch.bool)
    torch.testing.assert_close(found, mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(spread[off], cov[off], rtol=0, atol=1e-6)
    words = law.sample(400_000)
    error = words.std(0) / len(words) ** 0.5
    assert bool(((words.mean(0) - mean).abs() < 4 * error).all())
    products = (words - mean)[:, :, None] * (words - mean)[:, None, :]
    assert bool(((products.mean(0) - cov).abs() < 4 * products.std(0) / len(words) ** 0.5)[off].all())


def test_what_no_word_can_do_is_named():
    with pytest.raises(ValueError, match="the mean of neuron 1 must be between 0 and 1; it is 0"):
        DichotomisedGaussian.matching(torch.tensor([0.1, 0.0]), torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"neurons 0 and 1 cannot have covariance 0\.2 with means 0\.1 and 0\.3"):
        DichotomisedGaussian.matching(torch.tensor([0.1, 0.3]).double(), torch.full((2, 2), 0.2).double())
    three = -0.07 * torch.ones(3, 3, dtype=F64)
    with pytest.raises(ValueError, match="no Gaussian has these correlations"):
        DichotomisedGaussian.matching(torch.full((3,), 0.3).double(), three, repair=False)
    values = torch.linalg.eigvalsh(DichotomisedGaussian.matching(torch.full((3,), 0.3).double(), three).correlation)
    assert float(values.min()) > 0
