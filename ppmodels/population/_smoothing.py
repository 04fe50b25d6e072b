"""The posterior of a path from its block-tridiagonal precision: the Kalman smoother in a few batched rounds."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ppmodels.population._path_prior import PathPrior, prior_blocks
from ppmodels.population._readings import Readings, activity
from ppmodels.population.block_toeplitz import BlockToeplitz
from ppmodels.population.block_tridiagonal import BlockTridiagonal
from ppmodels.population.kalman import Smoothed
from ppmodels.population.linear_system import LinearSystem


@dataclass(frozen=True)
class PathPosterior:
    """A Gaussian posterior of paths: mean (R, T, P), its precision, and log p(y), (R,).

    readings: what was seen.
    """

    mean: Tensor
    precision: "Precision"
    log_likelihood: Tensor
    readings: Readings

    def moments(self) -> Smoothed:
        """Return means, covariances and lag-one covariances."""
        return Smoothed(self.mean, *self.precision.covariance(), self.log_likelihood)


@dataclass(frozen=True)
class Precision:
    """What the values seen do not change: the posterior's precision, one for all trials where all bins are seen.

    start: what the prior adds to the first bin of precision times mean, (R or 1, 1, P). away: what the readout's
    offset adds to every bin, (P, R T or 1). log_det (R or 1,). constant (R or 1,): twice -log p(y) where y is its mean.
    """

    blocks: BlockTridiagonal | BlockToeplitz
    start: Tensor
    away: Tensor
    constant: Tensor

    @property
    def log_det(self) -> Tensor:
        return self.blocks.log_det.reshape(-1)

    def solve(self, pull: Tensor) -> Tensor:
        """Return the inverse times each of (R, T, P)."""
        if isinstance(self.blocks, BlockToeplitz):
            return self.blocks.solve(pull)
        return self.blocks.solve(pull[..., None])[..., 0]

    def covariance(self) -> tuple[Tensor, Tensor]:
        """Return covariances, (R or 1, T, P, P), and lag-one covariances, (R or 1, T - 1, P, P)."""
        own, step = self.blocks.covariance()
        return (own[None], step[None]) if isinstance(self.blocks, BlockToeplitz) else (own, step)


def smooth(system: LinearSystem, readings: Readings) -> PathPosterior:
    """Return the posterior of the paths of trials (R, T, N).

    Where all was seen, trials share one covariance, which saves most of the work.
    """
    assert system.noise is not None
    y, sums = readings.values, readings.sums
    scaled = (system.loading / system.noise[:, None]).mT  # C' R^-1, (P, N)
    sizes = (2 * math.pi * system.noise).log()  # (N,)
    if readings.seen is None:
        precision = _alike(system, y.shape[1], scaled, y.shape[1] * sizes.sum())
    else:
        precision = _each(system, readings.seen, scaled, sizes)
    pull = scaled @ y.flatten(0, 1).mT + precision.away  # (P, R T)
    pull = pull.unflatten(1, y.shape[:2]).permute(1, 2, 0)
    pull = torch.cat([pull[:, :1] + precision.start, pull[:, 1:]], 1)
    mean = precision.solve(pull)
    misfit = sums.misfit(system.offset, system.noise)
    value = 0.5 * ((pull * mean).sum((-2, -1)) - misfit - precision.constant)
    return PathPosterior(mean, precision, value, readings)


def _alike(system: LinearSystem, bins: int, scaled: Tensor, size: Tensor) -> Precision:
    """One precision of so many bins, of each of which the neurons tell as much."""
    first, later, arrow, ends = prior_blocks(system)
    information = scaled @ system.loading  # (P, P)
    leaving, last = system.dynamics.mT @ arrow, later + information
    start = first + information
    blocks = BlockToeplitz.factor(start + leaving if bins > 1 else start, last + leaving, last, -arrow, bins)
    pulled = first @ system.initial_loc
    constant = size + ends[0] + (bins - 1) * ends[1] + blocks.log_det + system.initial_loc @ pulled
    return Precision(blocks, pulled[None, None], -(scaled @ system.offset)[:, None], constant[None])


def _each(system: LinearSystem, seen: Tensor, scaled: Tensor, sizes: Tensor) -> Precision:
    """A precision for each trial, by what was seen of it, (R, T, N)."""
    prior, size = PathPrior.of(system, activity(seen)), system.latents
    pairs = (scaled.mT[:, :, None] * system.loading[:, None, :]).flatten(1)  # (N, P P)
    on = seen.to(pairs)
    information = (on @ pairs).unflatten(-1, (size, size))  # (R, T, P, P)
    blocks = BlockTridiagonal.factor(prior.diagonal + information, prior.below)
    constant = (on @ sizes).sum(-1) - 2 * prior.constant - prior.log_det + blocks.log_det
    return Precision(blocks, prior.start, -(scaled * system.offset) @ on.flatten(0, 1).mT, constant)
