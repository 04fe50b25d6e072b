"""Sequences that a network makes value by value, each from those before it."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn import functional

from ppmodels.nn.generate import draw
from ppmodels.sequence._network import read, suited
from ppmodels.sequence._readout import Readout

Choice = Callable[[Tensor], Tensor]


class Autoregressive(TorchDistribution):
    r"""The law :math:`p(y) = \prod_t p(y_t \mid y_{<t})` of y (T,), tokens, or (T, K), numbers or counts.

    network: causal. What it is shown at t is y_{t-1}, a token as it is, numbers as they are and counts as
    log(1 + y); and at first the token K, or zeros. Where it has `decode`, a draw costs one step a value.
    """

    arg_constraints = {}  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]

    def __init__(self, network: nn.Module, readout: Readout, length: int) -> None:
        self.network, self.readout = network, readout
        event = [length] if readout.emission == "categorical" else [length, len(readout.bias)]
        super().__init__(torch.Size(), torch.Size(event), validate_args=False)
        self._validate_args = True

    @property
    def support(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        one = {
            "categorical": constraints.integer_interval(0, len(self.readout.bias) - 1),
            "gaussian": constraints.real,
            "poisson": constraints.nonnegative_integer,
        }[self.readout.emission]
        return constraints.independent(one, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Autoregressive":
        new = copy.copy(self)
        new._batch_shape = torch.Size(batch_shape)
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        flat = value.reshape(-1, *self.event_shape)  # (B, T, ...)
        shown = torch.cat([self._begin(len(flat)), self._shown(flat[:, :-1])], 1)
        law = self.readout.law(read(self.network, shown))
        batch = value.shape[: value.ndim - len(self.event_shape)]
        return law.log_prob(flat.long() if self._tokens else flat).sum(-1).reshape(batch)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        batch = torch.Size((*sample_shape, *self.batch_shape))
        drawn = self.continued(self._begin(batch.numel()), self.event_shape[0], self._draw)
        return drawn.reshape(*batch, *self.event_shape)

    @torch.no_grad()
    def continued(self, shown: Tensor, count: int, choose: Choice) -> Tensor:
        """The next values after what the network has been shown (B, S, ...), (B, count, ...).

        choose: a value (B, ...) from features (B, W).
        """
        values, state, new, decode = [], None, shown, getattr(self.network, "decode", None)
        for _ in range(count):
            if decode is not None:
                features, state = decode(suited(self.network, new), state)
            else:
                features = read(self.network, shown)
            values.append(choose(features[:, -1]))
            new = self._shown(values[-1][:, None])
            shown = shown if decode is not None else torch.cat([shown, new], 1)
        return torch.stack(values, 1)

    def after(self, past: Tensor, count: int, temperature: float, top_k: int | None, top_p: float | None) -> Tensor:
        """The next values after a past (B, S, ...), S >= 0; tokens may be tempered and cut."""
        shown = torch.cat([self._begin(len(past)), self._shown(past)], 1)
        if self._tokens:
            return self.continued(
                shown, count, lambda h: draw(self.readout.outputs(h).detach(), temperature, top_k, top_p)
            )
        if temperature != 1 or top_k is not None or top_p is not None:
            raise ValueError(f"temperature, top_k and top_p are for tokens; y is {self.readout.emission}")
        return self.continued(shown, count, self._draw)

    @property
    def _tokens(self) -> bool:
        return self.readout.emission == "categorical"

    def _draw(self, features: Tensor) -> Tensor:
        return self.readout.law(features).sample()

    def _begin(self, rows: int) -> Tensor:
        """What the network is shown before any value, (B, 1) or (B, 1, K)."""
        k, like = len(self.readout.bias), self.readout.bias.detach()
        if self._tokens:
            return torch.full((rows, 1), k, device=like.device)
        return torch.zeros(rows, 1, k, dtype=like.dtype, device=like.device)

    def _shown(self, y: Tensor) -> Tensor:
        if self._tokens:
            return y.long()
        return functional.relu(y).log1p() if self.readout.emission == "poisson" else y
