"""The rows of one data set, or of thousands: values, how often each counts, and which were cut off."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppmodels.parametric.family import Family


@dataclass(frozen=True)
class Sample:
    """Data sets side by side, all tensors (..., N).

    x: values. weight: how often a row counts; 0 leaves it out, so sets of unequal size fit one tensor.
    censored: 0 where x was seen, 1 where the value is above x, -1 where it is at most x; None when all were seen.
    """

    x: Tensor
    weight: Tensor
    censored: Tensor | None = None

    @classmethod
    def of(cls, family: Family, x: Any, weight: Any = None, censored: Any = None) -> "Sample":
        """Return the rows as float tensors of one shape.

        Raises: ValueError that names data set and row of what the family cannot have made.
        """
        x = torch.as_tensor(x)
        x = x if x.is_floating_point() else x.to(torch.float64)
        if x.ndim == 0 or x.shape[-1] == 0:
            raise ValueError(f"x must be (..., rows) with at least one row; it is {tuple(x.shape)}")
        weight = torch.ones_like(x) if weight is None else torch.as_tensor(weight).to(x)
        cut = None if censored is None else torch.as_tensor(censored, device=x.device).long()
        try:
            shape = torch.broadcast_shapes(x.shape, weight.shape, *(() if cut is None else (cut.shape,)))
        except RuntimeError:
            raise ValueError(f"weight is {tuple(weight.shape)} and x {tuple(x.shape)}; they must broadcast") from None
        x, weight = x.expand(shape), weight.expand(shape)
        _refuse(~(weight >= 0) | weight.isinf(), weight, "weight", "; weights are finite and >= 0")
        _refuse(weight.sum(-1, keepdim=True) <= 0, weight, "weight", ", and all other weights are 0: nothing is left")
        wrong = ~(family.support.check(x) & x.isfinite()) & (weight > 0)
        _refuse(wrong, x, "x", f"; {family} takes {family.values}")
        if cut is not None:
            cut = cut.expand(shape)
            _refuse(~((cut == 0) | (cut.abs() == 1)), cut, "censored", "; it is 0, 1 (above x) or -1 (at most x)")
        filler = x.gather(-1, weight.argmax(-1, keepdim=True))  # what does not count must not give NaN either
        return cls(torch.where(weight > 0, x, filler), weight, cut)

    @property
    def shape(self) -> torch.Size:
        """How the data sets are arranged: () for one."""
        return self.x.shape[:-1]

    @property
    def rows(self) -> Tensor:
        """Return the number of rows, with their weights, (...)."""
        return self.weight.sum(-1)

    def flat(self) -> tuple[Tensor, ...]:
        """Return the tensors as (B, N)."""
        parts = (self.x, self.weight) if self.censored is None else (self.x, self.weight, self.censored)
        return tuple(part.reshape(-1, part.shape[-1]) for part in parts)


def row_log_likelihood(family: Family, theta: Tensor, x: Tensor, censored: Tensor | None = None) -> Tensor:
    """Return what each row adds, without its weight, (..., N): a density, or the probability of where it was cut."""
    seen = family.log_prob(x, theta)
    if censored is None:
        return seen
    above, below = family.log_survival(x, theta), family.log_cdf(x, theta)
    return torch.where(censored == 0, seen, torch.where(censored > 0, above, below))


def log_likelihood(family: Family, theta: Tensor, x: Tensor, weight: Tensor, censored: Tensor | None = None) -> Tensor:
    """Return the sum over rows, (...)."""
    return (weight * row_log_likelihood(family, theta, x, censored)).sum(-1)


def _refuse(wrong: Tensor, values: Tensor, name: str, why: str) -> None:
    if bool(wrong.any()):
        *places, row = wrong.nonzero()[0].tolist()
        where = f" of data set {', '.join(map(str, places))}" if places else ""
        raise ValueError(
            f"{name} is {values[(*places, row)].item():g} in row {row}{where}{'' if why[0] == ';' else ' '}{why}"
        )
