"""A discrete linear system, one step at a time: what a state-space layer is when it generates."""

from typing import NamedTuple

import torch
from torch import Tensor


class Recurrence(NamedTuple):
    r"""A diagonal system; O(N) a step, whatever came before.

    .. math:: x_k = \bar\Lambda x_{k-1} + \bar B u_k,\quad y_k = \mathrm{Re}\, \bar C^T x_k

    Complex modes stand for themselves and their conjugates: C bar counts both.

    decay: Lambda bar, (H, N). input: B bar, (H, N). readout: C bar, (H, N).
    """

    decay: Tensor
    input: Tensor
    readout: Tensor

    def start(self, batch: int) -> Tensor:
        """The state before the first input, zero, (B, H, N)."""
        return torch.zeros((batch, *self.decay.shape), dtype=self.decay.dtype, device=self.decay.device)

    def step(self, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """One input, (B, H), and the state before it: y (B, H) and the state after it (B, H, N)."""
        after = torch.addcmul(self.input * u[..., None], self.decay, x)
        return project(self.readout, after), after

    def scan(self, u: Tensor, x: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Every step of u (B, L, H): y (B, L, H) and the last state."""
        return scanned(self, u, x)


class LowRankRecurrence(NamedTuple):
    r"""Diagonal plus low rank, in the eigenbasis; O(N) a step, whatever came before.

    .. math:: x_k = \bar\Lambda x_{k-1} - \bar P\, \mathrm{Re}(\bar Q^T x_{k-1}) + \bar B u_k

    .. math:: y_k = \mathrm{Re}\, \bar C^T x_k =
        \mathrm{Re}\,(\bar C^T \bar\Lambda - \bar C^T \bar P\, \bar Q^T) x_{k-1} + \mathrm{Re}(\bar C^T \bar B)\, u_k

    so that all that is read off a state is one real product with it: - Q bar, and the row of y.

    decay: Lambda bar, (H, N). direct: u's share of y, (H,). On real and imaginary parts, interleaved: input: B bar,
    (H, 2 N); columns: P bar, R of (H, 2 N); rows: (H, R + 1, 2 N).
    """

    decay: Tensor
    direct: Tensor
    input: Tensor
    columns: tuple[Tensor, ...]
    rows: Tensor

    @classmethod
    def of(cls, decay: Tensor, into: Tensor, readout: Tensor, column: Tensor, row: Tensor) -> "LowRankRecurrence":
        """From Lambda, B and C bar, (H, N), and P and Q bar, (H, R, N), where C and Q count conjugates too."""
        passed = project(readout[:, None], column)  # Re C' P, (H, R)
        last = real_rows(readout * decay) - (passed[..., None] * real_rows(row)).sum(1)
        rows = torch.cat([-real_rows(row), last[:, None]], 1)
        columns = tuple(interleaved(c) for c in column.unbind(1))
        return cls(decay, project(readout, into), interleaved(into), columns, rows)

    def start(self, batch: int) -> Tensor:
        """The state before the first input, zero, (B, H, N)."""
        return torch.zeros((batch, *self.decay.shape), dtype=self.decay.dtype, device=self.decay.device)

    def step(self, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """One input, (B, H), and the state before it: y (B, H) and the state after it (B, H, N)."""
        read = (self.rows * x.view(u.dtype)[..., None, :]).sum(-1)  # (B, H, R + 1)
        *fed, y = read.unbind(-1)
        driven = self.input * u[..., None]  # (B, H, 2 N)
        for column, amount in zip(self.columns, fed, strict=True):
            driven = torch.addcmul(driven, column, amount[..., None])
        return torch.addcmul(y, self.direct, u), torch.addcmul(driven.view(x.dtype), self.decay, x)

    def scan(self, u: Tensor, x: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Every step of u (B, L, H): y (B, L, H) and the last state."""
        return scanned(self, u, x)


def scanned(system: Recurrence | LowRankRecurrence, u: Tensor, x: Tensor | None) -> tuple[Tensor, Tensor]:
    """Every step of u (B, L, H), from a state or from none: y (B, L, H) and the last state."""
    x = system.start(len(u)) if x is None else x
    outputs = []
    for now in u.unbind(1):
        y, x = system.step(now, x)
        outputs.append(y)
    return torch.stack(outputs, 1), x


def project(weights: Tensor, x: Tensor) -> Tensor:
    """Real part of sum_n w_n x_n, over the last axis."""
    total = (weights * x).sum(-1)
    return total.real if total.is_complex() else total


def real_rows(weights: Tensor) -> Tensor:
    """The row that gives Re sum_n w_n x_n from real and imaginary parts of x, interleaved, (..., 2 N)."""
    return interleaved(weights.conj())


def interleaved(x: Tensor) -> Tensor:
    """Real and imaginary parts side by side, (..., 2 N)."""
    return torch.view_as_real(x.resolve_conj()).flatten(-2)
