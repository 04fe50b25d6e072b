"""Expectation maximisation of a linear system: what is expected of the paths, and the system that fits it best."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ppmodels.base import Theta
from ppmodels.population._readings import Readings, activity
from ppmodels.population._readout_moments import ReadoutMoments, spread_seen
from ppmodels.population._smoothing import PathPosterior, smooth
from ppmodels.population._unrecorded import unrecorded
from ppmodels.population.block_toeplitz import BlockToeplitz, Spread
from ppmodels.population.kalman import Smoothed
from ppmodels.population.linear_system import LinearSystem


@dataclass(frozen=True)
class PathMoments:
    """Sums over trials and bins of what is expected of the paths.

    ahead, across, behind (P, P): of z_{t+1} z_{t+1}', z_{t+1} z_t' and z_t z_t' over the steps, `steps` in all.
    first (P,), first_square (P, P): of z_1 and z_1 z_1' over `trials`.
    """

    ahead: Tensor
    across: Tensor
    behind: Tensor
    steps: Tensor | int
    first: Tensor
    first_square: Tensor
    trials: Tensor | int

    @classmethod
    def of(cls, path: Smoothed, active: Tensor | None = None) -> "PathMoments":
        """Return the sums over the bins where trials have not ended, active (R, T); None is all of them."""
        mean, cov, step = path.mean, path.cov, path.lag_one
        if active is None:
            spread = Spread(cov.sum((0, 1)), step.sum((0, 1)), cov[:, 0].sum(0), cov[:, -1].sum(0))
            return cls.of_all(mean, spread, _products(mean, mean) + spread.whole)
        on = active.to(mean)
        trials, later, shown = on[:, 0], on[:, 1:], mean * on[..., None]
        before = mean[:, :-1] * later[..., None]
        return cls(
            _products(shown[:, 1:], mean[:, 1:]) + torch.einsum("rt,rtpq->pq", later, cov[:, 1:]),
            _products(shown[:, 1:], mean[:, :-1]) + torch.einsum("rt,rtpq->pq", later, step),
            _products(before, mean[:, :-1]) + torch.einsum("rt,rtpq->pq", later, cov[:, :-1]),
            later.sum(),
            shown[:, 0].sum(0),
            shown[:, 0].mT @ mean[:, 0] + torch.einsum("r,rpq->pq", trials, cov[:, 0]),
            trials.sum(),
        )

    @classmethod
    def of_all(cls, mean: Tensor, spread: Spread, whole: Tensor) -> "PathMoments":
        """Return the sums over all bins, of which `whole`, of z_t z_t', has one term a trial more than either part.

        mean (R, T, P). spread: of all trials.
        """
        trials, bins, _ = mean.shape
        first, last = mean[:, 0], mean[:, -1]
        start = first.mT @ first + spread.first
        across = _products(mean[:, 1:], mean[:, :-1]) + spread.step
        behind = whole - last.mT @ last - spread.last
        return cls(whole - start, across, behind, trials * (bins - 1), first.sum(0), start, trials)

    def expected_log_prob(self, system: LinearSystem) -> Tensor:
        """Return E log p(path), ()."""
        a, m = system.dynamics, system.initial_loc
        moved = self.ahead - a @ self.across.mT - self.across @ a.mT + a @ self.behind @ a.mT
        started = self.first_square - torch.outer(m, self.first) - torch.outer(self.first, m)
        started = started + self.trials * torch.outer(m, m)
        steps = _gaussian(moved, system.innovation, self.steps)
        return steps + _gaussian(started, system.initial_cov, self.trials)

    def maximise(self, initial: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return A, Q, m_0 and V_0 of the highest expected log density. initial: "free", or V_0 = Q."""
        dynamics = torch.linalg.solve(self.behind, self.across.mT).mT
        moved = self.ahead - dynamics @ self.across.mT
        mean = self.first / self.trials
        started = self.first_square - torch.outer(self.first, mean)
        if initial == "free":
            return dynamics, _even(moved / self.steps), mean, _even(started / self.trials)
        both = _even((moved + started) / (self.steps + self.trials))
        return dynamics, both, mean, both


@dataclass(frozen=True)
class Expected:
    """q of the paths, as what the M step needs of it; theta is where it was taken. entropy ()."""

    theta: Theta
    path: PathMoments
    readout: ReadoutMoments
    entropy: Tensor

    @classmethod
    def of(cls, theta: Theta, found: PathPosterior) -> "Expected":
        """Sum over the bins of the trials that have not ended."""
        mean, readings, blocks = found.mean, found.readings, found.precision.blocks
        each = 0.5 * mean.shape[-1] * (1 + math.log(2 * math.pi))  # of a bin's entropy
        if isinstance(blocks, BlockToeplitz):
            spread = blocks.spread(len(mean))
            readout = ReadoutMoments.of(mean, readings, spread.whole[None])
            moments = PathMoments.of_all(mean, spread, readout.square[0, :-1, :-1])
            return cls(theta, moments, readout, each * mean.shape[0] * mean.shape[1] - 0.5 * len(mean) * blocks.log_det)
        assert readings.seen is not None
        path, active = found.moments(), activity(readings.seen)
        readout = ReadoutMoments.of(mean, readings, spread_seen(path.cov, readings))
        return cls(theta, PathMoments.of(path, active), readout, each * active.sum() - 0.5 * blocks.log_det.sum())


@unrecorded
def expect(system: LinearSystem, readings: Readings, theta: Theta) -> tuple[Expected, Tensor]:
    """Return the E step: q of the paths, and log p(y) of all trials, ()."""
    found = smooth(system, readings)
    return Expected.of(theta, found), found.log_likelihood.sum()


def maximise(q: Expected, initial: str) -> LinearSystem:
    """Return the M step: the system of the highest expected log density, in any coordinates."""
    return LinearSystem(*q.path.maximise(initial), *q.readout.maximise())


def _products(one: Tensor, other: Tensor) -> Tensor:
    """The sum over trials and bins of one other', of (R, n, P) each; (P, P)."""
    return one.flatten(0, 1).mT @ other.flatten(0, 1)


def _gaussian(square: Tensor, cov: Tensor, count: Tensor | int) -> Tensor:
    """E log N summed over `count` deviations whose squares sum to `square`."""
    root = torch.linalg.cholesky(cov)
    size = 2 * root.diagonal().log().sum() + len(cov) * math.log(2 * math.pi)
    return -0.5 * (torch.cholesky_solve(square, root).diagonal().sum() + count * size)


def _even(matrix: Tensor) -> Tensor:
    return (matrix + matrix.mT) / 2
