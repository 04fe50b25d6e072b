"""The Kalman filter and the Rauch-Tung-Striebel smoother, bin by bin, for all trials at once.

This is the textbook's recursion, with any Q and with gaps (NaN). The models use the same posterior from its
block-tridiagonal precision, which takes log T batched rounds; tests hold the two to one another.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ppmodels.population._positive import cholesky
from ppmodels.population.linear_system import LinearSystem


@dataclass(frozen=True)
class Filtered:
    """What is known of the path from the bins so far.

    mean (R, T, P), cov (R, T, P, P): of z_t given y_1..t. predicted_mean, predicted_cov: given y_1..t-1.
    log_likelihood (R,).
    """

    mean: Tensor
    cov: Tensor
    predicted_mean: Tensor
    predicted_cov: Tensor
    log_likelihood: Tensor


@dataclass(frozen=True)
class Smoothed:
    """What is known of the path from all bins.

    mean (R, T, P); cov (R, T, P, P), of z_t; lag_one (R, T - 1, P, P), Cov(z_{t+1}, z_t). One cov stands for
    all trials, (1, ...), where all see the same bins.
    log_likelihood (R,).
    """

    mean: Tensor
    cov: Tensor
    lag_one: Tensor
    log_likelihood: Tensor


def kalman_filter(system: LinearSystem, y: Tensor) -> Filtered:
    """Filter trials y (R, T, N), NaN where nothing was seen.

    Raises: NotPositive naming the bin where a covariance is not positive definite.
    Source: Bishop (2006), equations 13.89 to 13.91.
    """
    assert system.noise is not None
    trials, bins, _ = y.shape
    mean = system.initial_loc.expand(trials, -1)
    cov = system.initial_cov.expand(trials, -1, -1)
    kept: list[tuple[Tensor, ...]] = []
    for t in range(bins):
        predicted = mean, cov
        seen = ~y[:, t].isnan()  # (R, N)
        loading = torch.where(seen[..., None], system.loading, 0.0)  # (R, N, P)
        residual = torch.where(seen, y[:, t] - system.offset, 0.0) - (loading @ mean[..., None])[..., 0]
        spread = loading @ cov @ loading.mT + torch.diag_embed(torch.where(seen, system.noise, 1.0))  # (R, N, N)
        root = cholesky(spread, f"filtering, bin {t}", "the covariance of y given the bins before")
        gain = torch.cholesky_solve(loading @ cov, root).mT  # (R, P, N)
        white = torch.linalg.solve_triangular(root, residual[..., None], upper=False)[..., 0]
        size = 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1) + seen.to(y).sum(-1) * math.log(2 * math.pi)
        mean = mean + (gain @ residual[..., None])[..., 0]
        keep = torch.eye(system.latents, dtype=y.dtype, device=y.device) - gain @ loading
        cov = keep @ cov @ keep.mT + gain @ torch.diag(system.noise) @ gain.mT  # Joseph's form stays positive
        kept.append((mean, cov, *predicted, -0.5 * (white.square().sum(-1) + size)))
        mean, cov = mean @ system.dynamics.mT, system.dynamics @ cov @ system.dynamics.mT + system.innovation
    means, covs, predicted_means, predicted_covs, gains = (torch.stack(part, 1) for part in zip(*kept, strict=True))
    return Filtered(means, covs, predicted_means, predicted_covs, gains.sum(-1))


def rts_smoother(system: LinearSystem, y: Tensor) -> Smoothed:
    """Smooth trials y (R, T, N), NaN where nothing was seen.

    Source: Bishop (2006), equations 13.100 and 13.101; lag-one covariance by Minka (1999), From Hidden
        Markov Models to Linear Dynamical Systems.
    """
    forward = kalman_filter(system, y)
    mean, cov = forward.mean[:, -1], forward.cov[:, -1]
    means, covs, steps = [mean], [cov], []
    for t in range(y.shape[1] - 2, -1, -1):
        ahead = forward.predicted_cov[:, t + 1]
        gain = torch.linalg.solve(ahead, system.dynamics @ forward.cov[:, t]).mT  # (R, P, P)
        steps.append(cov @ gain.mT)
        mean = forward.mean[:, t] + (gain @ (mean - forward.predicted_mean[:, t + 1])[..., None])[..., 0]
        cov = forward.cov[:, t] + gain @ (cov - ahead) @ gain.mT
        means.append(mean)
        covs.append(cov)
    lag = torch.stack(steps[::-1], 1) if steps else forward.cov[:, :0]
    return Smoothed(torch.stack(means[::-1], 1), torch.stack(covs[::-1], 1), lag, forward.log_likelihood)
