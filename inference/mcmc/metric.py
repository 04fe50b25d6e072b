"""The metric: what makes a posterior look like a standard normal, learned from the chains' draws and gradients."""

from dataclasses import dataclass

import torch
from torch import Tensor

DENSE_UP_TO = 200  # coordinates; beyond it a matrix costs more than it saves
UNROLLED_UP_TO = 16  # coordinates up to which a product is written out, so that it fuses with what surrounds it


@dataclass(frozen=True)
class Metric:
    """Sigma = F F^T, an estimate of the posterior's covariance; positions are x = F z, momenta n are standard normal.

    factor: F, (dim,) when diagonal, else lower triangular (dim, dim).
    """

    factor: Tensor

    def __post_init__(self) -> None:
        """Store every matrix in one way, columns first, so that one compiled step serves all of a run."""
        object.__setattr__(self, "factor", self.factor.mT.contiguous().mT if self.dense else self.factor)

    @property
    def dense(self) -> bool:
        """Does it know of correlations?"""
        return self.factor.ndim == 2


def spread(factor: Tensor, n: Tensor) -> Tensor:
    """F n for each chain, (C, dim): from standard coordinates to the model's."""
    return factor * n if factor.ndim == 1 else _product(factor, n)


def whiten(factor: Tensor, g: Tensor, fused: bool = True) -> Tensor:
    """F^T g for each chain, (C, dim): a gradient in standard coordinates; `fused` with what surrounds it, or alone."""
    return factor * g if factor.ndim == 1 else _product(factor.mT, g, fused)


def _product(matrix: Tensor, x: Tensor, fused: bool = True) -> Tensor:
    """Matrix @ x[c] for each chain c, with the chains innermost in memory."""
    if fused and len(matrix) <= UNROLLED_UP_TO:
        return (matrix[:, :, None] * x.mT[None]).sum(1).mT
    return (matrix @ x.mT).mT


def standard(dim: int, like: Tensor) -> Metric:
    """Return the unit metric."""
    return Metric(torch.ones(dim, dtype=like.dtype, device=like.device))


def learn(draws: Tensor, grads: Tensor) -> Metric:
    """Return the metric that draws and gradients, each (n, dim), support.

    Many draws: their covariance, shrunk to its diagonal by 1/(n/dim + 1). Few: the diagonal that minimises the
    Fisher divergence, sigma_i^2 = sd(draws_i) / sd(grads_i).

    Source: Seyboldt, Carlson, Carpenter (2026), Preconditioning HMC by minimising Fisher divergence.
    """
    n, dim = draws.shape
    sd_draws, sd_grads = draws.std(0), grads.std(0)
    sd_grads = torch.where(sd_grads > 0, sd_grads, 1.0 / sd_draws.clamp(min=1e-10))
    fisher = (sd_draws / sd_grads).clamp(1e-20, 1e20).sqrt()
    fisher = torch.where(fisher.isfinite(), fisher, torch.ones_like(fisher))
    if dim > DENSE_UP_TO or n < 5 * dim:
        return Metric(fisher)
    share = dim / (n + dim)
    covariance = torch.cov(draws.T).reshape(dim, dim)
    covariance = (1 - share) * covariance + share * torch.diag(covariance.diagonal())
    factor, failed = torch.linalg.cholesky_ex(covariance)
    return Metric(fisher) if failed or not factor.isfinite().all() else Metric(factor)
