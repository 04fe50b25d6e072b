"""Smoothed weights and k-hat, against ArviZ and against tails whose shape is known."""

import math

import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats

from inference.psis import generalised_pareto, psis, quantile


def pareto(shape, size, seed):
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(size, generator=generator, dtype=torch.float64)
    return shape * -torch.log1p(-u)  # log of Pareto draws with this tail shape


@pytest.mark.parametrize("size", [40, 100, 1000, 4001])
@pytest.mark.parametrize("shape", [0.05, 0.4, 0.9, 1.5])
@pytest.mark.parametrize("r_eff", [1.0, 0.6])
def test_equals_arviz(size, shape, r_eff):
    ratios = pareto(shape, size, seed=size)
    ours, khat = psis(ratios, r_eff)
    theirs, their_khat = array_stats.psislw(-ratios.numpy(), r_eff=r_eff)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-6)
    assert khat == pytest.approx(float(their_khat), abs=1e-6)


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.8, 1.2])
def test_finds_the_shape_of_a_tail(shape):
    khats = [psis(pareto(shape, 20_000, seed))[1] for seed in range(10)]
    assert np.mean(khats) == pytest.approx(shape, abs=0.05)


def test_weights_are_normalised_and_keep_their_order():
    ratios = pareto(0.8, 500, seed=1)
    weights, _ = psis(ratios)
    assert float(weights.exp().sum()) == pytest.approx(1.0, abs=1e-12)
    assert bool((weights[ratios.argsort()].diff() >= 0).all())


def test_an_infinite_ratio_is_never_trusted():
    ratios = torch.tensor([0.0, math.inf, 1.0] * 20, dtype=torch.float64)
    weights, khat = psis(ratios)
    assert khat == math.inf
    assert float(weights.exp()[1::3].sum()) == pytest.approx(1.0)


def test_impossible_draws_weigh_nothing():
    ratios = torch.cat([pareto(0.3, 300, seed=2), torch.tensor([-math.inf, math.nan], dtype=torch.float64)])
    weights, khat = psis(ratios)
    assert bool((weights[-2:] == -math.inf).all())
    assert 0 < khat < 0.7


def test_too_few_draws_tell_nothing():
    assert psis(torch.randn(10, dtype=torch.float64))[1] == math.inf
    assert psis(torch.full((50,), math.nan, dtype=torch.float64))[1] == math.inf


def test_equal_ratios_are_a_perfect_approximation():
    weights, khat = psis(torch.full((100,), -3.0, dtype=torch.float64))
    assert khat == 0.0
    assert torch.allclose(weights.exp(), torch.full((100,), 0.01, dtype=torch.float64))


def test_quantile_inverts_the_distribution():
    p = torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
    for shape in (-0.4, 0.0, 0.7):
        x = quantile(p, shape, 2.0)
        below = -torch.expm1(-x / 2) if shape == 0 else 1 - (1 + shape * x / 2) ** (-1 / shape)
        assert torch.allclose(below, p, atol=1e-12)


def test_pareto_fit_is_that_of_exact_quantiles():
    p = (torch.arange(5000, dtype=torch.float64) + 0.5) / 5000
    shape, scale = generalised_pareto(quantile(p, 0.6, 3.0))
    assert shape == pytest.approx(0.6, abs=0.01)
    assert scale == pytest.approx(3.0, rel=0.02)
