"""A running mean of the weights: smoother than the last ones, and often better."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Average:
    r"""Exponential moving average of parameters, by name.

    .. math:: a \leftarrow a + (1 - d_t)(\theta - a),\; d_t = \min(d, (1 + t) / (10 + t))

    so that early weights are soon forgotten.

    Source: Polyak and Juditsky (1992); the warm-up as in diffusers' `EMAModel`.
    """

    decay: float
    values: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"ema must be at least 0 and less than 1; it is {self.decay}")

    @torch.no_grad()
    def update(self, step: int, parameters: Mapping[str, Tensor]) -> None:
        """Take in the parameters after a step, counted from 0."""
        for name in parameters.keys() - self.values.keys():
            self.values[name] = parameters[name].detach().clone()
        names, lerp = list(self.values), torch._foreach_lerp_  # pyright: ignore[reportPrivateImportUsage]
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        lerp([self.values[n] for n in names], [parameters[n].detach() for n in names], share)


@contextmanager
def swapped(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Iterator[None]:
    """Compute with other values of the parameters inside; afterwards all is as before."""
    before = {name: parameters[name].detach().clone() for name in values}
    try:
        write(parameters, values)
        yield
    finally:
        write(parameters, before)


@torch.no_grad()
def write(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Overwrite parameters in place, by name."""
    for name, value in values.items():
        parameters[name].copy_(value)
