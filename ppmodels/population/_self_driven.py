"""Spike counts of a population that drives itself: the likelihood of all bins at once, and the rollout bin by bin."""

from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from ppmodels.population._law import Law
from ppmodels.population.lagging import lagged


@dataclass(frozen=True)
class Filters:
    """How spikes act on later bins: weights, and the bases that they weigh, each (L, functions).

    history: (N, H), of each neuron's own spikes. coupling: (N, M, K), M = N - 1: of the others', in their order.
    """

    history: Tensor
    coupling: Tensor
    history_basis: Tensor
    coupling_basis: Tensor

    def drive(self, series: Tensor, bins: int) -> Tensor:
        """Return what spikes add to the drive, (..., T, N), of counts (..., L + T - 1, N)."""
        total = series.new_zeros(*series.shape[:-2], bins, series.shape[-1])
        if self.history.shape[-1]:
            total = total + (lagged(series, self.history_basis) * self.history).sum(-1)
        if self.coupling.shape[-1] and self.coupling.shape[-2]:
            features = lagged(series, self.coupling_basis).flatten(-2)  # (..., T, N K)
            total = total + features @ square(self.coupling).flatten(-2).mT
        return total

    def kernel(self) -> Tensor:
        """Return the filters in bins, (post, pre, L), lag 1 first; the diagonal is each neuron's history."""
        others = square(self.coupling) @ self.coupling_basis.mT  # (N, N, L)
        own = self.history @ self.history_basis.mT  # (N, L)
        return others + own[..., None, :] * torch.eye(own.shape[-2]).to(own)[..., None]


class PopulationCounts(TorchDistribution):
    """Counts (T, N) of a trial, each bin given those before: batch (R,), event (T, N).

    drive: (R, T, N) without the spikes' share. past: (R, L, N), the bins before. seen: (R, T, N), which are scored.
    ceiling: mean count at which a rollout is cut.
    """

    arg_constraints = {}  # type: ignore[assignment]
    support = constraints.independent(constraints.nonnegative_integer, 2)  # type: ignore[assignment]

    def __init__(
        self, law: Law, drive: Tensor, past: Tensor, seen: Tensor, filters: Filters,
        dispersion: Tensor | None = None, ceiling: float = 1e3,
    ) -> None:  # fmt: skip
        self.law, self.drive, self.past, self.seen = law, drive, past, seen
        self.filters, self.dispersion, self.ceiling = filters, dispersion, ceiling
        super().__init__(drive.shape[:-2], drive.shape[-2:], validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "PopulationCounts":
        if torch.Size(batch_shape) != self.batch_shape:
            raise ValueError(f"{tuple(self.batch_shape)} trials cannot be {tuple(batch_shape)}")
        return self

    def total_drive(self, value: Tensor) -> Tensor:
        """Return the drive of every bin, (R, T, N), with the share of the spikes before it."""
        if not self.past.shape[-2]:
            return self.drive
        series = torch.cat([self.past, value[..., :-1, :]], -2)  # (R, L + T - 1, N)
        return self.drive + self.filters.drive(series, value.shape[-2])

    def log_prob(self, value: Tensor) -> Tensor:
        every = self.law.log_prob(value, self.total_drive(value), self.dispersion)  # (R, T, N)
        return torch.where(self.seen > 0, every, 0.0).sum((-1, -2))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Roll out: each bin is drawn given those before it."""
        with torch.no_grad():
            drive, past = (x.expand(*sample_shape, *x.shape) for x in (self.drive, self.past))
            width = past.shape[-2]
            if not width:
                return self.law.sample(drive, self.dispersion, self.ceiling)
            weight = self.filters.kernel().flip(-1).movedim(-1, -2).flatten(-2)  # (post, L N), the oldest bin first
            bins = []
            for now in drive.unbind(-2):
                eta = now + past.flatten(-2) @ weight.mT  # (R, N)
                bins.append(self.law.sample(eta, self.dispersion, self.ceiling))
                past = torch.cat([past[..., 1:, :], bins[-1][..., None, :]], -2)
            return torch.stack(bins, -2)


def square(others: Tensor) -> Tensor:
    """Return (..., N, N, K) of (..., N, N - 1, K): zeros on the diagonal, the others beside it in their order."""
    *batch, neurons, rest, functions = others.shape
    if not rest:
        return others.new_zeros(*batch, 1, 1, functions)
    rows = others.reshape(*batch, rest, neurons, functions)  # off-diagonal entries come in runs of N between zeros
    gaps = others.new_zeros(*batch, rest, 1, functions)
    flat = torch.cat([gaps, rows], -2).reshape(*batch, rest * (neurons + 1), functions)
    return torch.cat([flat, gaps[..., :1, :, :].squeeze(-3)], -2).reshape(*batch, neurons, neurons, functions)
