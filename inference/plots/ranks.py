"""Chains ranked together: how far each chain's ranks are from uniform, and how far chance alone brings them."""

import numpy as np
from scipy.stats import rankdata


def rank_difference(draws: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Return the share of each chain's draws whose rank among all is below each grid point, less that point.

    draws (chain, draw); grid (G,) from 0 to 1.

    Returns: (chain, G).
    """
    share = rankdata(draws).reshape(draws.shape) / draws.size
    return (share[..., None] <= grid).mean(1) - grid


def rank_band(chains: int, draws: int, prob: float = 0.99, simulations: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Return a grid and the half width of the band that holds all chains, everywhere, with this probability.

    Were draws independent and chains alike, a chain's share below t has the variance of sampling without
    replacement, t (1 - t) (1 - 1 / chains) / draws; its multiple is found by simulation.
    """
    grid = np.linspace(0, 1, 101)
    sd = np.sqrt(grid * (1 - grid) * (1 - 1 / chains) / draws)
    random = np.random.default_rng(0)
    worst = []
    for _ in range(simulations):
        difference = np.abs(rank_difference(random.random((chains, draws)), grid[1:-1]))
        worst.append(float((difference / sd[1:-1]).max()))
    return grid, np.quantile(worst, prob) * sd
