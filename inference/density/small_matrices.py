"""Factorisations of small matrices over many chains, written out with the chains along the last axis.

LAPACK takes a microsecond for each small matrix of a batch. Written out, each of its few steps is one operation
on C neighbouring numbers, and a compiler fuses it with what stands around it.
"""

from typing import Any

import torch
from torch import Tensor

LARGEST = 12  # rows; beyond it the graph grows more than the time falls


def cholesky(a: Tensor) -> Tensor:
    """Return the lower factor of each a, (n, n, C); nan where a is not positive definite."""
    n, columns = len(a), []
    for j in range(n):
        pivot = a[0, 0]  # (C,)
        column = a[:, 0] * torch.where(pivot > 0, pivot, torch.nan).rsqrt()  # (n - j, C)
        columns.append(torch.cat([torch.zeros_like(column[:1]).expand(j, -1), column]))
        a = a[1:, 1:] - column[1:, None] * column[None, 1:]
    return torch.stack(columns, 1)


def solve_triangular(a: Tensor, b: Tensor, upper: bool) -> Tensor:
    """Return x with a x = b for each chain: a (n, n, C) triangular, b (n, m, C)."""
    n, rows = len(a), []
    for i in reversed(range(n)) if upper else range(n):
        rest = slice(0, i) if upper else slice(i + 1, n)
        here = -1 if upper else 0
        row = b[here] / a[i, i]  # (m, C)
        rows.append(row)
        b = (b[:-1] if upper else b[1:]) - a[rest, i, None] * row[None]
    return torch.stack(rows[::-1] if upper else rows)


def cholesky_rule(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """`linalg_cholesky_ex`, lower, for small matrices."""
    a = args[0]
    if a.ndim != 3 or len(a) > LARGEST or kwargs.get("upper") or any(args[1:]):
        return NotImplemented
    factor = cholesky(a)
    return factor, torch.zeros_like(factor[0, 0], dtype=torch.int32)


def solve_rule(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """`linalg_solve_triangular` for small matrices, from either side."""
    a, b = args
    if a.ndim not in (2, 3) or b.ndim not in (2, 3) or len(a) > LARGEST or kwargs.get("unitriangular"):
        return NotImplemented
    a = a if flags[0][0] else a[..., None]
    b = b if flags[0][1] else b[..., None]
    if a.ndim != 3 or b.ndim != 3:
        return NotImplemented
    upper = kwargs["upper"]
    if kwargs.get("left", True):
        return solve_triangular(a, b, upper)
    return solve_triangular(a.transpose(0, 1), b.transpose(0, 1), not upper).transpose(0, 1)
