"""Factorisations of small matrices over many chains, written out with the chains along the last axis.

LAPACK takes a microsecond for each small matrix of a batch. Written out, each of its few steps is one operation
on C neighbouring numbers, and a compiler fuses it with what stands around it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
LARGEST = 12  # rows; beyond it the graph grows more than the time falls


def cholesky(a: Tensor) -> Tensor:
    """Return the lower factor of each a, (..., n, n, C); nan where a is not positive definite."""
    columns = []
    for j in range(a.shape[-3]):
        pivot = a[..., :1, 0, :]  # (..., 1, C)
        column = a[..., 0, :] * torch.where(pivot > 0, pivot, torch.nan).rsqrt()  # (..., n - j, C)
        above = torch.zeros_like(column[..., :1, :]).expand(*column.shape[:-2], j, -1)
        columns.append(torch.cat([above, column], -2))
        below = column[..., 1:, :]
        a = a[..., 1:, 1:, :] - below[..., None, :] * below[..., None, :, :]
    return torch.stack(columns, -2)


def solve_triangular(a: Tensor, b: Tensor, upper: bool) -> Tensor:
    """Return x with a x = b for each chain: a (..., n, n, C) triangular, b (..., n, m, C)."""
    n, rows = a.shape[-3], []
    for i in reversed(range(n)) if upper else range(n):
        rest = slice(0, i) if upper else slice(i + 1, n)
        here = -1 if upper else 0
        row = b[..., here, :, :] / a[..., i, i, None, :]  # (..., m, C)
        rows.append(row)
        b = b[..., :-1, :, :] if upper else b[..., 1:, :, :]
        b = b - a[..., rest, i, None, :] * row[..., None, :, :]
    return torch.stack(rows[::-1] if upper else rows, -3)


def cholesky_rule(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """`linalg_cholesky_ex`, lower, for small matrices."""
    a = args[0]
    if not 0 < a.shape[-2] <= LARGEST or any(kwargs.values()) or any(args[1:]):
        return NotImplemented
    factor = cholesky(a)
    return factor, torch.zeros_like(factor[..., 0, 0, :], dtype=torch.int32)


def solve_rule(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """`linalg_solve_triangular` for small matrices, from either side."""
    a, b = (x if batched else x[..., None] for x, batched in zip(args, flags[0], strict=True))
    if not 0 < a.shape[-2] <= LARGEST or kwargs.get("unitriangular"):
        return NotImplemented
    if kwargs.get("left", True):
        return solve_triangular(a, b, kwargs["upper"])
    return solve_triangular(a.transpose(-3, -2), b.transpose(-3, -2), not kwargs["upper"]).transpose(-3, -2)


def inverse_rule(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """`cholesky_inverse`, of a lower factor, for small matrices."""
    factor = args[0]
    if not 0 < factor.shape[-2] <= LARGEST or any(args[1:]) or any(kwargs.values()):
        return NotImplemented
    eye = torch.eye(factor.shape[-2], dtype=factor.dtype, device=factor.device)[..., None]
    root = solve_triangular(factor, eye, upper=False)  # (..., n, n, C)
    return (root[..., :, :, None, :] * root[..., :, None, :, :]).sum(-4)


SMALL_MATRICES: dict[Any, Callable[..., Any]] = {
    aten.linalg_cholesky_ex.default: cholesky_rule,
    aten.linalg_solve_triangular.default: solve_rule,
    aten.cholesky_inverse.default: inverse_rule,
}
