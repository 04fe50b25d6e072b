"""The posterior of a path from its block-tridiagonal precision: the Kalman smoother in log T batched rounds."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ppmodels.population.block_tridiagonal import BlockTridiagonal
from ppmodels.population.kalman import Smoothed
from ppmodels.population.linear_system import LinearSystem


@dataclass(frozen=True)
class PathPrior:
    """The Gaussian law of a path as precision, with R = 1 where all trials are of one length.

    diagonal (R, T, P, P), below (R, T - 1, P, P): blocks. start: first block of precision times mean, (R, 1, P).
    log_det (R,), of the precision. constant (R,): minus half the mean's square in the precision.
    """

    diagonal: Tensor
    below: Tensor
    start: Tensor
    log_det: Tensor
    constant: Tensor

    @classmethod
    def of(cls, system: LinearSystem, active: Tensor) -> "PathPrior":
        """Return the law of the bins where `active`, (R, T), a trial has not ended; others are N(0, I) apart."""
        eye = torch.eye(system.latents, dtype=system.loading.dtype, device=system.loading.device)
        first, later, arrow, ends = cls._blocks(system)
        on = active[..., None, None]  # (R, T, 1, 1)
        diagonal = torch.where(on, later, eye)
        diagonal = torch.cat([torch.where(on[:, :1], first, eye), diagonal[:, 1:]], 1)
        leaving = torch.where(on[:, 1:], system.dynamics.mT @ arrow, 0.0)
        diagonal = diagonal + torch.nn.functional.pad(leaving, (0, 0, 0, 0, 0, 1))
        start = torch.where(active[:, :1, None], first @ system.initial_loc, 0.0)
        alive = active.to(diagonal)
        log_det = -(alive[:, 0] * ends[0] + alive[:, 1:].sum(-1) * ends[1])
        constant = -0.5 * alive[:, 0] * (system.initial_loc @ first @ system.initial_loc)
        return cls(diagonal, torch.where(on[:, 1:], -arrow, 0.0), start, log_det, constant)

    @classmethod
    def alike(cls, system: LinearSystem, bins: int) -> "PathPrior":
        """Return the law of so many bins, R = 1."""
        first, later, arrow, ends = cls._blocks(system)
        leaving = system.dynamics.mT @ arrow
        inner = (later + leaving).expand(max(0, bins - 2), -1, -1)
        diagonal = torch.cat([(first + leaving)[None], inner, later[None]]) if bins > 1 else first[None]
        pulled = first @ system.initial_loc
        log_det, constant = -(ends[0] + (bins - 1) * ends[1]), -0.5 * (system.initial_loc @ pulled)
        below = -arrow.expand(1, bins - 1, -1, -1)
        return cls(diagonal[None], below, pulled[None, None], log_det[None], constant[None])

    @staticmethod
    def _blocks(system: LinearSystem) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
        """V_0^-1, Q^-1, Q^-1 A, and the log determinants of V_0 and Q."""
        initial, moving = torch.linalg.cholesky(system.initial_cov), torch.linalg.cholesky(system.innovation)
        first, later = torch.cholesky_inverse(initial), torch.cholesky_inverse(moving)
        return first, later, later @ system.dynamics, (_log_det(initial), _log_det(moving))


@dataclass(frozen=True)
class PathPosterior:
    """A Gaussian posterior of paths: mean (R, T, P), the factored precision, and log p(y), (R,)."""

    mean: Tensor
    precision: BlockTridiagonal
    log_likelihood: Tensor

    def moments(self) -> Smoothed:
        """Return means, covariances and lag-one covariances."""
        return Smoothed(self.mean, *self.precision.covariance(), self.log_likelihood)


def smooth(system: LinearSystem, y: Tensor, gaps: bool) -> PathPosterior:
    """Return the posterior of the paths of trials y (R, T, N).

    gaps: some bins are missing, NaN. Without, all trials share one covariance, which saves most of the work.
    """
    assert system.noise is not None
    seen = ~y.isnan() if gaps else None
    residual = y - system.offset if seen is None else torch.where(seen, y - system.offset, 0.0)
    scaled = system.loading / system.noise[:, None]  # R^-1 C, (N, P)
    size = (2 * math.pi * system.noise).log()  # (N,)
    if seen is None:
        information = (system.loading.mT @ scaled).expand(1, y.shape[1], -1, -1)
        sizes = y.shape[1] * size.sum()
    else:
        each = (scaled[:, :, None] * system.loading[:, None, :]).flatten(1)  # (N, P P)
        information = (seen.to(y) @ each).unflatten(-1, (system.latents, system.latents))  # (R, T, P, P)
        sizes = (seen * size).sum((-2, -1))
    prior = PathPrior.of(system, activity(y)) if gaps else PathPrior.alike(system, y.shape[1])
    precision = BlockTridiagonal.factor(prior.diagonal + information, prior.below)
    pull = residual @ scaled  # (R, T, P)
    pull = torch.cat([pull[:, :1] + prior.start, pull[:, 1:]], 1)
    mean = solve(precision, pull)
    misfit = (residual.square() @ system.noise.reciprocal()).sum(-1)
    value = prior.constant + 0.5 * ((pull * mean).sum((-2, -1)) - misfit - sizes + prior.log_det - precision.log_det)
    return PathPosterior(mean, precision, value)


def solve(precision: BlockTridiagonal, pull: Tensor) -> Tensor:
    """Return precision^-1 pull for each trial, (R, T, P), also where all trials share one precision."""
    if precision.log_det.shape[0] == 1:
        return precision.solve(pull.permute(1, 2, 0)[None])[0].permute(2, 0, 1)
    return precision.solve(pull[..., None])[..., 0]


def activity(y: Tensor) -> Tensor:
    """Return where each trial has not ended: up to the last bin with something seen, (R, T)."""
    seen = (~y.isnan()).any(-1)
    return seen.flip(-1).cumsum(-1).flip(-1) > 0


def _log_det(root: Tensor) -> Tensor:
    return 2 * root.diagonal().log().sum()
