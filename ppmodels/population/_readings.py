"""Trials of values, which of them were seen, and their sums, which a fit takes once."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary


@dataclass(frozen=True)
class Sums:
    """Over a trial's bins, of values less an origin near the neurons' means, so that no digits are lost.

    origin (N,). total, square (R, N): of y and y^2. count (R, N): how many were seen; (1, N) where all were.
    """

    origin: Tensor
    total: Tensor
    square: Tensor
    count: Tensor

    @classmethod
    def of(cls, y: Tensor, gaps: bool) -> "Sums":
        """Sum y (R, T, N)."""
        origin = y.nanmean((0, 1)) if gaps else y.mean((0, 1))
        origin = torch.where(origin.isnan(), 0.0, origin)  # of a neuron never seen
        apart = y - origin
        if not gaps:
            return cls(origin, apart.sum(1), apart.square().sum(1), torch.full_like(y[:1, 0], y.shape[1]))
        return cls(origin, apart.nansum(1), apart.square().nansum(1), (~y.isnan()).sum(1).to(y))

    @cached_property
    def together(self) -> tuple[Tensor, Tensor, Tensor]:
        """Squares and counts of all trials, and each neuron's variance, (N,) each."""
        count = (self.count * (len(self.total) / len(self.count))).sum(0)
        square = self.square.sum(0)
        return square, count, square / count - (self.total.sum(0) / count).square()

    def misfit(self, offset: Tensor, noise: Tensor) -> Tensor:
        """Return each trial's squares of y - offset over the noise's variances, (R,)."""
        away = offset - self.origin
        return (self.square + away * (away * self.count - 2 * self.total)) @ noise.reciprocal()


@dataclass(frozen=True)
class Readings:
    """Trials y (R, T, N): values, 0 where not `seen`, which is None where all was; and their sums."""

    values: Tensor
    seen: Tensor | None
    sums: Sums

    @classmethod
    def of(cls, y: Tensor, gaps: bool) -> "Readings":
        """Read y, where NaN, with `gaps`, is what was not seen."""
        return cls._with(y, gaps, Sums.of(y, gaps))

    @classmethod
    def kept(cls, y: Tensor, gaps: bool) -> "Readings":
        """Read y, of which EM asks at every step; its sums are kept as long as it lives unchanged."""
        key = 0 if y.is_inference() else y._version, gaps  # what inference mode made does not count its changes
        if y not in _KEPT or _KEPT[y][0] != key:
            with torch.inference_mode(False):  # they outlast the step that asks first
                _KEPT[y] = key, Sums.of(y, gaps)
        return cls._with(y, gaps, _KEPT[y][1])

    @classmethod
    def _with(cls, y: Tensor, gaps: bool, sums: Sums) -> "Readings":
        seen = ~y.isnan() if gaps else None
        return cls(y if seen is None else torch.where(seen, y, 0.0), seen, sums)


_KEPT = WeakTensorKeyDictionary()


def activity(seen: Tensor) -> Tensor:
    """Return where each trial of what was seen, (R, T, N), has not ended: up to the last bin with any, (R, T)."""
    return seen.any(-1).flip(-1).cumsum(-1).flip(-1) > 0
