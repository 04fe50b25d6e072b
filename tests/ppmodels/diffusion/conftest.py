"""Data whose scores are known, and the law of a linear sampler."""

import pytest
import torch
from torch import Tensor

from ppmodels.diffusion import ddim, editing, langevin, samplers, sde
from ppmodels.diffusion.mixture import NoisedMixture


@pytest.fixture(scope="session")
def seeded():
    return lambda seed=0: torch.Generator().manual_seed(seed)


@pytest.fixture(scope="session")
def gaussian():
    """N(mean, variance) in every one of dim independent dimensions."""

    def make(variance=4.0, mean=0.0, dim=1):
        return NoisedMixture.isotropic(torch.full((1, dim), mean, dtype=torch.float64), variance**0.5)

    return make


@pytest.fixture(scope="session")
def ring():
    """Eight round clusters of sd 0.25 on a circle of radius 2."""
    angle = 2 * torch.pi * torch.arange(8, dtype=torch.float64) / 8
    return NoisedMixture.isotropic(2 * torch.stack([angle.cos(), angle.sin()], -1), 0.25)


@pytest.fixture
def exact_variance(monkeypatch):
    """Output variance of a sampler that is linear in its start and its noise, without sampling.

    Every draw of noise becomes a coordinate of its own, so the output holds every draw's coefficient.
    """

    def variance(draw, start_variance, size=1_100):
        drawn = [0]

        def coordinate(like: Tensor, generator: object) -> Tensor:
            drawn[0] += 1
            unit = torch.zeros_like(like)
            unit[drawn[0]] = 1
            return unit

        for module in (ddim, editing, langevin, samplers, sde):
            monkeypatch.setattr(module, "standard_normal", coordinate)
        x = torch.zeros(size, 1, dtype=torch.float64)
        x[0] = start_variance**0.5
        return float(draw(x).square().sum())

    return variance
