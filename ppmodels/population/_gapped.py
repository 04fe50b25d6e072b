"""Trials as one observation each: the density of all that was seen, where NaN is what was not."""

import copy
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints


class _Trials(constraints.Constraint):
    """Matrices (T, N) of numbers, NaN where nothing was seen if `gaps`."""

    event_dim = 2

    def __init__(self, gaps: bool, is_discrete: bool = False) -> None:
        self.gaps, self.is_discrete = gaps, is_discrete  # pyright: ignore[reportAttributeAccessIssue]
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        fine = value.isfinite() | value.isnan() if self.gaps else value.isfinite()
        return fine.all(-1).all(-1)


class TrialDistribution(TorchDistribution):
    """A law of matrices (T, N), a trial each, alike for all trials.

    gaps: values may be NaN, which are summed out. Without, the model needs no mask.
    """

    arg_constraints = {}  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    gaps: bool = False

    def __init__(self, bins: int, neurons: int, gaps: bool, shape: Any = ()) -> None:
        self.gaps = gaps
        super().__init__(torch.Size(shape), torch.Size([bins, neurons]), validate_args=False)
        self._validate_args = True

    @property
    def support(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        return _Trials(self.gaps)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "TrialDistribution":
        new = copy.copy(self)
        new._batch_shape = torch.Size(batch_shape)
        return new


class Gapped(TrialDistribution):
    """Independent values (*batch, T, N) of a law with one value each, as one observation a trial."""

    def __init__(self, base: TorchDistribution, gaps: bool) -> None:
        bins, neurons = base.batch_shape[-2:]
        super().__init__(bins, neurons, gaps, base.batch_shape[:-2])
        self.base = base

    def log_prob(self, value: Tensor) -> Tensor:
        if not self.gaps:
            return self.base.log_prob(value).sum((-2, -1))
        seen = ~value.isnan()
        return torch.where(seen, self.base.log_prob(torch.where(seen, value, 0.0)), 0.0).sum((-2, -1))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.base.sample(torch.Size(sample_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Gapped":
        return Gapped(self.base.expand(torch.Size([*batch_shape, *self.event_shape])), self.gaps)
