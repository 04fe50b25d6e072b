"""Inputs to a generator of rates: a prior that drifts, and a guide that infers them as the generator runs."""

import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from ppmodels.nn.lfads import Encoder, Generator


class _Inputs(TorchDistribution):
    """A law of inputs (T, U), a trial each."""

    arg_constraints = {}  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    support = constraints.independent(constraints.real, 2)  # pyright: ignore
    has_rsample = True

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)


class DriftingInputs(_Inputs):
    """u_1 ~ N(0, s^2), u_t ~ N(a u_{t-1}, (1 - a^2) s^2), with the generator's s and a, (U,)."""

    def __init__(self, generator: Generator, bins: int, shape: Any = ()) -> None:
        self.generator = generator
        super().__init__(torch.Size(shape), torch.Size([bins, generator.controls]), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "DriftingInputs":
        return DriftingInputs(self.generator, self.event_shape[0], batch_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        scale, keep = self.generator.log_scale.exp(), self.generator.persistence.sigmoid()
        shape = torch.Size((*sample_shape, *self.batch_shape, *self.event_shape))
        noise = scale * torch.randn(shape, dtype=scale.dtype, device=scale.device)
        path = [noise[..., 0, :]]
        for t in range(1, shape[-2]):
            path.append(keep * path[-1] + (1 - keep.square()).sqrt() * noise[..., t, :])
        return torch.stack(path, -2)

    def log_prob(self, value: Tensor) -> Tensor:
        scale, keep = self.generator.log_scale.exp(), self.generator.persistence.sigmoid()
        first = _log_normal(value[..., 0, :], 0.0 * scale, scale)
        steps = _log_normal(value[..., 1:, :], keep * value[..., :-1, :], (1 - keep.square()).sqrt() * scale)
        return first.sum(-1) + steps.sum((-2, -1))


class InferredInputs(_Inputs):
    """q(u | y, start): in each bin the controller sees the spikes and the factors that the inputs so far made.

    told (R, T, 2 H): what the encoder says of each bin. start (..., R, G).
    """

    def __init__(self, encoder: Encoder, generator: Generator, told: Tensor, start: Tensor) -> None:
        self.encoder, self.generator, self.told, self.start = encoder, generator, told, start
        self.last: tuple[Tensor, Tensor] | None = None
        super().__init__(start.shape[:-1], torch.Size([told.shape[-2], generator.controls]), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "InferredInputs":
        start = self.start.expand(*batch_shape, self.start.shape[-1])
        return InferredInputs(self.encoder, self.generator, self.told, start)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        start = self.start.expand(*sample_shape, *self.start.shape)
        self.last = self._run(start, None)
        return self.last[0]

    def log_prob(self, value: Tensor) -> Tensor:
        if self.last is not None and value is self.last[0]:
            return self.last[1]
        return self._run(self.start.expand(*value.shape[:-2], self.start.shape[-1]), value)[1]

    def _run(self, now: Tensor, value: Tensor | None) -> tuple[Tensor, Tensor]:
        """The inputs, drawn or given, and their log density."""
        hidden, path, log_q = None, [], torch.zeros_like(now[..., 0])
        for t in range(self.event_shape[0]):
            factors = self.generator.factor(now)
            mean, scale, hidden = self.encoder.control(self.told[..., t, :], factors, hidden)
            one = mean + scale * torch.randn_like(mean) if value is None else value[..., t, :]
            log_q = log_q + _log_normal(one, mean, scale).sum(-1)
            now = self.generator.step(now, one)
            path.append(one)
        return torch.stack(path, -2), log_q


def _log_normal(value: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    return -0.5 * ((value - mean) / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)
