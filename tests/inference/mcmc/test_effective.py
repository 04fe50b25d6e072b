"""Effective sample sizes are ArviZ's."""

import arviz_stats
import pytest
import torch

from inference.mcmc import effective
from inference.mcmc.effective import bulk_ess


def autoregressive(coefficient, chains, draws, seed=0):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(chains, draws, generator=generator, dtype=torch.float64)
    x = noise.clone()
    for i in range(1, draws):
        x[:, i] = coefficient * x[:, i - 1] + (1 - coefficient**2) ** 0.5 * noise[:, i]
    return x


@pytest.mark.parametrize("coefficient", [-0.7, 0.0, 0.5, 0.95])
@pytest.mark.parametrize(("chains", "draws"), [(1, 500), (4, 501), (64, 200)])
def test_bulk_ess_is_arviz_s(coefficient, chains, draws):
    x = autoregressive(coefficient, chains, draws)
    for shown in (x, x.exp(), x + torch.arange(chains).double()[:, None]):
        truth = float(arviz_stats.ess(shown.numpy(), method="bulk"))
        assert bulk_ess(shown[..., None]) == pytest.approx(truth, rel=0.02)


def test_the_smallest_coordinate_counts_in_blocks_too(monkeypatch):
    x = torch.stack([autoregressive(c, 4, 400, seed) for seed, c in enumerate((0.0, 0.9, 0.3, 0.5, 0.6))], -1)
    whole = bulk_ess(x)
    assert whole == pytest.approx(float(arviz_stats.ess(x[..., 1].numpy(), method="bulk")), rel=0.02)
    monkeypatch.setattr(effective, "BLOCK", 2 * 4 * 200 * 2)
    assert bulk_ess(x) == pytest.approx(whole, rel=1e-12)
