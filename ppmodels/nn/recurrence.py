"""A discrete linear system, one step at a time: what a state-space layer is when it generates."""

from typing import NamedTuple

import torch
from torch import Tensor


class Recurrence(NamedTuple):
    r"""Diagonal plus low rank, in the eigenbasis; O(N) a step, whatever came before.

    .. math:: x_k = \bar\Lambda x_{k-1} - \bar P\, 2\mathrm{Re}(\bar Q^T x_{k-1}) + \bar B u_k

    .. math:: y_k = 2\mathrm{Re}\, C^T x_k

    With a real `decay` there is no conjugate half, and so no 2 Re.

    decay: (H, N). input: (H, N). readout: (H, N).
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
        after = self.decay * x + self.input * u[..., None]
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
    """sum_n w_n x_n over the last axis; twice its real part when x is half of conjugate pairs."""
    if not x.is_complex():
        return (weights * x).sum(-1)
    left = torch.view_as_real(weights.conj_physical()).flatten(-2)
    return 2 * (left * torch.view_as_real(x).flatten(-2)).sum(-1)
