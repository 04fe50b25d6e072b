"""Effective sample size, to know while sampling when there is enough."""

import torch
from torch import Tensor

BLOCK = 2**22  # numbers looked at together


def bulk_ess(x: Tensor) -> float:
    """Smallest rank-normalised bulk ESS over the coordinates of x, (C, draw, dim); nan where one never moved.

    Source: Vehtari, Gelman, Simpson, Carpenter, Bürkner (2021), Rank-normalization, folding, and localization.
    """
    half = x.shape[1] // 2
    together = max(1, BLOCK // (2 * x.shape[0] * half))
    least = [_of_ranks(torch.cat([part[:, :half], part[:, -half:]])) for part in x.split(together, dim=2)]
    return float(torch.stack(least).min())


def _of_ranks(split: Tensor) -> Tensor:
    """Smallest ESS of the normal scores of split, (2C, half, dim), as ()."""
    ranks = split.flatten(0, 1).argsort(0).argsort(0).double() + 1
    z = torch.special.ndtri((ranks - 0.375) / (len(ranks) + 0.25)).reshape(split.shape)
    return _ess(z).min()


def _ess(z: Tensor) -> Tensor:
    """Multi-chain ESS of each coordinate of z, (M, n, dim), by Geyer's initial monotone sequence, (dim,)."""
    chains, n, _ = z.shape
    centred = z - z.mean(1, keepdim=True)
    spectrum = torch.fft.rfft(centred, 2 * n, dim=1)
    covariance = torch.fft.irfft(spectrum.abs().square(), 2 * n, dim=1)[:, :n] / n  # (M, n, dim)
    mean_covariance = covariance.mean(0)  # (n, dim)
    within = mean_covariance[0] * n / (n - 1)
    between = z.mean(1).var(0) if chains > 1 else torch.zeros_like(within)
    total = within * (n - 1) / n + between
    rho = 1 - (within - mean_covariance * n / (n - 1)) / total
    rho[0] = 1.0
    pairs = rho[: n // 2 * 2].reshape(n // 2, 2, -1).sum(1)  # (n // 2, dim)
    alive = (pairs > 0).cumprod(0)
    alive[(n - 3) // 2 :] = 0  # lags that hardly any pair of draws has
    monotone = torch.cummin(pairs, 0).values * alive
    last = alive.sum(0, keepdim=True)  # the first pair that is left out
    rest = rho[: n // 2 * 2 : 2].gather(0, last)[0].clamp(min=0)  # its even half counts once
    tau = (2 * monotone.sum(0) - 1 + rest).clamp(min=1 / torch.log10(torch.tensor(float(chains * n))))
    return chains * n / tau
