"""A discrete linear system, one step at a time: what a state-space layer is when it generates."""

from typing import NamedTuple

import torch
from torch import Tensor


class Recurrence(NamedTuple):
    r"""Diagonal plus low rank, in the eigenbasis; O(N) a step, whatever came before.

    .. math:: x_k = \bar\Lambda x_{k-1} - \bar P\, \mathrm{Re}(\bar Q^T x_{k-1}) + \bar B u_k

    .. math:: y_k = \mathrm{Re}\, \bar C^T x_k

    Complex modes stand for themselves and their conjugates: Q bar and C bar count both.

    decay: Lambda bar, (H, N). input: B bar, (H, N). readout: C bar, (H, N).
    column, row: P bar and Q bar, (H, R, N); None for a diagonal system.
    """

    decay: Tensor
    input: Tensor
    readout: Tensor
    column: Tensor | None = None
    row: Tensor | None = None

    def start(self, batch: int) -> Tensor:
        """The state before the first input, zero, (B, H, N)."""
        return torch.zeros((batch, *self.decay.shape), dtype=self.decay.dtype, device=self.decay.device)

    def step(self, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """One input, (B, H), and the state before it: y (B, H) and the state after it (B, H, N)."""
        after = torch.addcmul(self.input * u[..., None], self.decay, x)
        if self.row is not None and self.column is not None:
            mixed = project(self.row, x[..., None, :])  # (B, H, R)
            after = after - (self.column * mixed[..., None]).sum(-2)
        return project(self.readout, after), after

    def scan(self, u: Tensor, x: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Every step of u (B, L, H): y (B, L, H) and the last state."""
        x = self.start(len(u)) if x is None else x
        outputs = []
        for now in u.unbind(1):
            y, x = self.step(now, x)
            outputs.append(y)
        return torch.stack(outputs, 1), x


def project(weights: Tensor, x: Tensor) -> Tensor:
    """Real part of sum_n w_n x_n, over the last axis."""
    total = (weights * x).sum(-1)
    return total.real if total.is_complex() else total
