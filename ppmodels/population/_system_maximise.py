"""Expectation maximisation of a linear system: what is expected of the paths, and the system that fits it best."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppmodels.base import Theta
from ppmodels.population._smoothing import activity
from ppmodels.population.kalman import Smoothed
from ppmodels.population.linear_system import LinearSystem

FLOOR = 1e-6  # least noise variance, as a share of the neurons' mean variance


@dataclass(frozen=True)
class PathMoments:
    """Sums over trials and bins of what is expected of the paths.

    ahead, across, behind (P, P): of z_{t+1} z_{t+1}', z_{t+1} z_t' and z_t z_t' over the steps, `steps` in all.
    first (P,), first_square (P, P): of z_1 and z_1 z_1' over `trials`.
    """

    ahead: Tensor
    across: Tensor
    behind: Tensor
    steps: Tensor
    first: Tensor
    first_square: Tensor
    trials: Tensor

    @classmethod
    def of(cls, path: Smoothed, active: Tensor) -> "PathMoments":
        """Return the sums where trials have not ended, active (R, T); R = 1 for all alike."""
        trials, _, size = path.mean.shape
        on = active.to(path.mean)
        share = on.expand(trials, -1) if len(path.cov) > 1 else on * (trials / len(on))
        weighted, later = path.mean * on[..., None], on[:, 1:]
        flat = [part.reshape(-1, size) for part in (weighted[:, 1:], path.mean[:, 1:], path.mean[:, :-1])]
        spread = torch.einsum("rt,rtpq->tpq", share, path.cov)
        step = torch.einsum("rt,rtpq->pq", share[:, 1:], path.lag_one)
        behind = torch.einsum("rt,rtpq->pq", share[:, 1:], path.cov[:, :-1])
        count = trials // len(on)
        return cls(
            flat[0].mT @ flat[1] + spread[1:].sum(0),
            flat[0].mT @ flat[2] + step,
            (path.mean[:, :-1] * later[..., None]).reshape(-1, size).mT @ flat[2] + behind,
            later.sum() * count,
            weighted[:, 0].sum(0),
            weighted[:, 0].mT @ path.mean[:, 0] + spread[0],
            on[:, 0].sum() * count,
        )

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
class ReadoutMoments:
    """Sums over trials and bins for a Gaussian readout, of the path with a one behind it, z~ = (z, 1).

    square (N or 1, P + 1, P + 1): of z~ z~'. product (N, P + 1): of y z~. total (N,): of y^2. count (N,).
    """

    square: Tensor
    product: Tensor
    total: Tensor
    count: Tensor

    @classmethod
    def of(cls, path: Smoothed, y: Tensor, gaps: bool) -> "ReadoutMoments":
        """Return the sums over what was seen of y (R, T, N)."""
        trials, bins, _ = y.shape
        design = torch.cat([path.mean, torch.ones_like(path.mean[..., :1])], -1).flatten(0, 1)  # (R T, P + 1)
        seen = (~y.isnan()).to(y) if gaps else torch.ones_like(y[:1, :, :1])
        values = (torch.where(y.isnan(), 0.0, y) if gaps else y).flatten(0, 1)
        if not gaps:
            square = (design.mT @ design)[None]
            spread = path.cov.sum((0, 1))[None] * (trials / len(path.cov))
            count = torch.full_like(values[0], trials * bins)
        else:
            flat = seen.flatten(0, 1)
            each = (design[:, :, None] * design[:, None, :]).flatten(1)
            square = (flat.mT @ each).unflatten(-1, (design.shape[1],) * 2)
            spread = (flat.mT @ path.cov.flatten(0, 1).flatten(1)).unflatten(-1, path.cov.shape[-2:])
            count = flat.sum(0)
        square = square + torch.nn.functional.pad(spread, (0, 1, 0, 1))
        return cls(square, values.mT @ design, values.square().sum(0), count)

    def maximise(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return C, d and the noise's variances of the highest expected log likelihood."""
        weights = torch.linalg.solve(self.square, self.product[..., None])[..., 0]  # (N, P + 1)
        misfit = (self.total - (weights * self.product).sum(-1)) / self.count
        variance = self.total / self.count - (self.product[:, -1] / self.count).square()
        return weights[:, :-1], weights[:, -1], misfit.clamp_min(FLOOR * variance.mean())

    def expected_log_prob(self, system: Any) -> Tensor:
        """Return E log p(y | path), (), of a readout by loading (N, P), offset (N,) and noise variances (N,)."""
        weights = torch.cat([system.loading, system.offset[:, None]], -1)  # (N, P + 1)
        fit = (weights[:, None, :] @ self.square @ weights[..., None])[:, 0, 0]
        misfit = self.total - 2 * (weights * self.product).sum(-1) + fit
        return -0.5 * (misfit / system.noise + self.count * (2 * math.pi * system.noise).log()).sum()


@dataclass(frozen=True)
class Expected:
    """q of the paths, as what the M step needs of it; theta is where it was taken. entropy ()."""

    theta: Theta
    path: PathMoments
    readout: ReadoutMoments
    entropy: Tensor

    @classmethod
    def of(cls, theta: Theta, path: Smoothed, log_det: Tensor, y: Tensor, gaps: bool) -> "Expected":
        """log_det: of the posterior's precision, (R or 1,)."""
        active = activity(y) if gaps else torch.ones(1, y.shape[1], dtype=torch.bool, device=y.device)
        repeat = len(y) / len(active)
        numbers = active.to(y).sum() * repeat * path.mean.shape[-1]
        entropy = 0.5 * (numbers * (1 + math.log(2 * math.pi)) - log_det.sum() * (len(y) / len(log_det)))
        return cls(theta, PathMoments.of(path, active), ReadoutMoments.of(path, y, gaps), entropy)


def _gaussian(square: Tensor, cov: Tensor, count: Tensor) -> Tensor:
    """E log N summed over `count` deviations whose squares sum to `square`."""
    root = torch.linalg.cholesky(cov)
    size = 2 * root.diagonal().log().sum() + len(cov) * math.log(2 * math.pi)
    return -0.5 * (torch.cholesky_solve(square, root).diagonal().sum() + count * size)


def _even(matrix: Tensor) -> Tensor:
    return (matrix + matrix.mT) / 2
