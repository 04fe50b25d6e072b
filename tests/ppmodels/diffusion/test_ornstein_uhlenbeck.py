import math

import numpy as np
import pytest
import torch
from scipy import stats

from ppmodels.diffusion.fokker_planck import fokker_planck
from ppmodels.diffusion.ornstein_uhlenbeck import OrnsteinUhlenbeck


def test_moments():
    process = OrnsteinUhlenbeck(0.7, 1.3)
    assert process.stationary_variance == pytest.approx(1.3**2 / 1.4)
    assert float(process.mean(torch.tensor(2.0), 1.5)) == pytest.approx(2 * math.exp(-0.7 * 1.5))
    assert process.variance(50.0) == pytest.approx(process.stationary_variance)
    assert process.variance(1e-6) == pytest.approx(1.3**2 * 1e-6, rel=1e-5)


def test_steps_compose(seeded):
    """Two steps have the law of one twice as long."""
    process = OrnsteinUhlenbeck(0.7, 1.3)
    assert process.variance(0.8) == pytest.approx(process.variance(0.4) * (1 + math.exp(-2 * 0.7 * 0.4)))
    path = process.simulate(torch.full((100_000,), 2.0).double(), 0.4, 5, seeded())
    assert path.shape == (6, 100_000)
    assert float(path[-1].mean()) == pytest.approx(2 * math.exp(-0.7 * 2.0), abs=0.02)
    assert float(path[-1].var()) == pytest.approx(process.variance(2.0), rel=0.02)


def test_simulation_and_fokker_planck_agree(seeded):
    process = OrnsteinUhlenbeck(1.0, 1.0)
    x = torch.linspace(-5, 5, 501, dtype=torch.float64)
    start = (-((x - 1) ** 2) / 0.02).exp()
    density = fokker_planck(start / start.sum(), x, 0.6, process.drift, process.diffusion)
    x0 = 1 + 0.1 * torch.randn(5000, generator=seeded(), dtype=torch.float64)
    last = process.simulate(x0, 0.1, 6, seeded(1))[-1]
    cumulative = (density.cumsum(0) - density / 2).numpy()
    assert stats.kstest(last.numpy(), lambda v: np.interp(v, x.numpy(), cumulative)).pvalue > 0.01


def test_signs_are_checked():
    with pytest.raises(ValueError, match=r"must be positive; got 0\.0 and 1\.0"):
        OrnsteinUhlenbeck(0.0, 1.0)
