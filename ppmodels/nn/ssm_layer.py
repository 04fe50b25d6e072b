"""A state-space layer: long convolution in training, recurrence in generation, with the same weights."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ppmodels.nn.convolution import causal_convolution
from ppmodels.nn.recurrence import LowRankRecurrence, Recurrence
from ppmodels.nn.s4 import S4
from ppmodels.nn.s4d import S4D

SYSTEMS: dict[str, Callable[..., S4 | S4D]] = {"s4": S4, "s4d": S4D}


class SSMState(NamedTuple):
    """Where a generation stands: the discretised system, computed once, its state (B, H, M) and its rate."""

    recurrence: Recurrence | LowRankRecurrence
    hidden: Tensor
    rate: float = 1.0


class SSMLayer(nn.Module):
    r"""Channels through their own systems, then mixed: (B, L, H) -> (B, L, H).

    .. math:: y = \mathrm{GLU}(W\,\mathrm{drop}(\mathrm{gelu}(K * u + D \odot u)))

    With `gate`, what is mixed is first multiplied by silu(V u).

    channels: H. system: `s4` or `s4d`; `options` are passed on to it: states, init, method, dt.
    bidirectional: a second system reads from the end; then there is no generation.
    Source: Gu, Goel and Ré (2022), arXiv:2111.00396, section 3.4.
            Gate: Mehta, Gupta, Cutkosky and Neyshabur (2022), arXiv:2206.13947.
    """

    slow = ("skip",)

    def __init__(
        self,
        channels: int,
        system: str = "s4d",
        bidirectional: bool = False,
        gate: bool = False,
        dropout: float = 0.0,
        **options: Any,
    ):
        super().__init__()
        if system not in SYSTEMS:
            raise ValueError(f"no system {system!r}; there are: {', '.join(SYSTEMS)}")
        self.channels = channels
        self.ssm = SYSTEMS[system](channels, **options)
        self.reverse = SYSTEMS[system](channels, **options) if bidirectional else None
        self.skip = nn.Parameter(torch.randn(channels))
        self.gate = nn.Linear(channels, channels) if gate else None
        self.dropout = nn.Dropout(dropout)
        self.mix = nn.Linear(channels, 2 * channels)

    def forward(self, u: Tensor, rate: float = 1.0) -> Tensor:
        """u: (B, L, H). rate: 2 for a signal sampled half as often. Returns: (B, L, H)."""
        return self._finish(self._convolve(self._checked(u), rate), u)

    def default_state(self, batch: int = 1, rate: float = 1.0) -> SSMState:
        """The state before the first input. It holds the system as it is now: later training is not seen.

        Raises: ValueError for a bidirectional layer, which needs the future.
        """
        if self.reverse is not None:
            raise ValueError("a bidirectional layer reads the future and cannot be run step by step")
        recurrence = self.ssm.recurrence(rate)
        return SSMState(recurrence, recurrence.start(batch), rate)

    def step(self, u: Tensor, state: SSMState) -> tuple[Tensor, SSMState]:
        """One input u (B, H): the output (B, H) and the next state. O(N) a channel, at any position."""
        y, hidden = state.recurrence.step(u, state.hidden)
        return self._finish(torch.addcmul(y, self.skip, u), u), state._replace(hidden=hidden)

    def prefill(self, u: Tensor, state: SSMState) -> tuple[Tensor, SSMState]:
        """A whole stretch u (B, L, H) after a state: what that many calls of `step` return, by convolution.

        A diagonal system needs no loop over time, so a file of any length can be read in stretches.
        """
        u = self._checked(u)
        if not isinstance(self.ssm, S4D):
            y, hidden = state.recurrence.scan(u, state.hidden)
            return self._finish(y + self.skip * u, u), state._replace(hidden=hidden)
        carried = self.ssm.free_response(state.hidden, u.shape[1], state.rate).mT
        hidden = self.ssm.absorb(u.mT, state.hidden, state.rate)
        return self._finish(self._convolve(u, state.rate) + carried, u), state._replace(hidden=hidden)

    def _convolve(self, u: Tensor, rate: float) -> Tensor:
        kind = u.device.type
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            # Half precision would round the kernel's matrix product, and a long memory with it.
            with torch.autocast(kind, enabled=False):
                return self._convolve(u.to(self.skip.dtype), rate)
        length = u.shape[1]
        reverse = None if self.reverse is None else self.reverse.kernel(length, rate)
        # D u is a convolution with D at lag 0: one pass over the data fewer.
        skip = functional.pad(self.skip[:, None], (0, length - 1))
        return causal_convolution(u.mT, self.ssm.kernel(length, rate) + skip, reverse).mT

    def _finish(self, y: Tensor, u: Tensor) -> Tensor:
        y = functional.gelu(y)
        y = self.dropout(y) if self.training else y
        if self.gate is not None:
            y = y * functional.silu(self.gate(u))
        return functional.glu(self.mix(y), -1)

    def _checked(self, u: Tensor) -> Tensor:
        if u.dim() != 3 or u.shape[1] == 0 or u.shape[2] != self.channels:
            raise ValueError(f"expected (batch, length >= 1, {self.channels}) as input; got {tuple(u.shape)}")
        return u
