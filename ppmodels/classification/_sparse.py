"""Counts of sparse rows: one addition for each cell that is there, and none before somebody asks."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ppmodels.base import Theta
from ppmodels.base.moments import Moments
from ppmodels.classification._columns import Columns
from ppmodels.classification._scores import TINY
from ppmodels.classification._tables import Tables


def is_sparse(x: Any) -> bool:
    """Whether x is SciPy's or torch's sparse matrix."""
    return (isinstance(x, Tensor) and x.layout != torch.strided) or hasattr(x, "tocsr")


def cells_of(x: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, columns and values of what a sparse matrix holds, by rows."""
    if isinstance(x, Tensor):
        x = (x.to_sparse_coo() if x.layout != torch.sparse_coo else x).coalesce()
        row, column = x.indices().numpy()
        return row, column, x.values().numpy()
    x = x.tocsr()
    return np.repeat(np.arange(x.shape[0]), np.diff(x.indptr)), x.indices, x.data


def _rows(x: Any, kind: Any = None) -> Any:
    """The matrix as SciPy multiplies it."""
    row, column, value = cells_of(x)
    start = np.searchsorted(row, np.arange(x.shape[0] + 1))
    return sparse.csr_array((value if kind is None else value.astype(kind), column, start), shape=tuple(x.shape))


def check_cells(columns: Columns, x: Any) -> None:
    """Raise a ValueError that names the first cell that no column can hold; sparse columns are all of one kind."""
    if not columns.sparse:
        raise ValueError("sparse rows need columns that are all multinomial, or all bernoulli")
    if x.shape[1] != len(columns.kinds):
        raise ValueError(f"x must be (rows, {len(columns.kinds)}); it is {tuple(x.shape)}")
    value = cells_of(x)[2] if isinstance(x, Tensor) else x.tocsr().data
    binary = columns.kinds[0] == "bernoulli"
    wrong = ~((value == 1) | (value == 0)) if binary else ~((value >= 0) & (value < np.inf))
    if wrong.any():
        (row, column, _), place = cells_of(x), int(wrong.argmax())
        what = "0 or 1" if binary else "a count of 0 or more"
        raise ValueError(f"x is {value[place]} in row {row[place]}, column {column[place]}; it must be {what}")


@dataclass(frozen=True)
class SparseTables:
    """The sums of sparse rows of known classes, as `Tables` are, which it becomes where somebody looks at them.

    count: rows (C,). cells: (place in a table (C, V), by rows, and how much to add there), a pair a set of rows.
    Adding only lists them, until they are as many as the table has places.
    """

    columns: Columns
    count: Tensor
    cells: tuple[tuple[np.ndarray, np.ndarray], ...]
    dtype: torch.dtype
    dense: Tables | None = None

    @classmethod
    def of(cls, columns: Columns, x: Any, label: Tensor, classes: int, weight: Tensor | None = None) -> "SparseTables":
        """Return those of rows of classes (N,), each as often as its weight, (N,), says; -1 does not count."""
        row, column, value = cells_of(x)
        place, known = label.numpy().astype(np.int64), label.numpy() >= 0
        safe = np.maximum(place, 0)
        heavy = known.astype(float) if weight is None else np.where(known, weight.numpy(), 0.0)
        plain = weight is None and bool(known.all())
        cells = safe[row] * len(columns.kinds) + column, value if plain else value * heavy[row]
        return cls(
            columns, torch.from_numpy(np.bincount(safe, heavy, classes)), (cells,), torch.from_numpy(value).dtype
        )

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, SparseTables):
            return self.tables + other
        both = replace(self, count=self.count + other.count, cells=self.cells + other.cells)
        dense = [part for part in (self.dense, other.dense) if part is not None]
        both = replace(both, dense=dense[0] + dense[1] if len(dense) == 2 else dense[0] if dense else None)
        large = sum(len(place) for place, _ in both.cells) > len(self.count) * len(self.columns.kinds)
        return replace(both, cells=(), dense=both.tables) if large else both

    def __radd__(self, other: Tables) -> Tables:
        return other + self.tables

    def __mul__(self, factor: float) -> Tables:
        return self.tables * factor

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.tables, name)

    @cached_property
    def tables(self) -> Tables:
        """The same, dense."""
        size = len(self.count), len(self.columns.kinds)
        if self.dense is None:
            cells = torch.zeros(size, dtype=torch.float64)
        else:
            cells = (self.dense.words if self.columns.kinds[0] == "multinomial" else self.dense.ones).clone()
        for place, value in self.cells:
            np.add.at(cells.numpy().reshape(-1), place, value)
        return _tables(self.columns, self.count, cells, self.dtype)


def sparse_tables(columns: Columns, x: Any, q: Tensor) -> Tables:
    """Return the sums of sparse rows whose memberships are q, (N, C)."""
    value, rows = cells_of(x)[2], _rows(x, float)
    cells = torch.from_numpy(rows.T @ q.double().numpy()).mT.contiguous()  # (C, V)
    return _tables(columns, q.double().sum(0), cells, torch.from_numpy(value[:0]).dtype)


def sparse_log_density(columns: Columns, theta: Theta, x: Any) -> Tensor:
    """Return log p(x_n | y_n = c, theta) of sparse rows, (N, C), without the multinomial coefficient."""
    if "rate" in theta:
        one, zero = theta["rate"].clamp(min=TINY).log(), (1 - theta["rate"]).clamp(min=TINY).log()  # (C, V)
        weights, offset = one - zero, zero.sum(-1)
    else:
        weights, offset = theta["word_prob"].clamp(min=TINY).log(), torch.zeros(len(theta["class_prob"]))
    return torch.from_numpy(_rows(x) @ weights.mT.contiguous().numpy()) + offset


def _tables(columns: Columns, count: Tensor, cells: Tensor, dtype: torch.dtype) -> Tables:
    """Rows (C,) and cells (C, V) as the sums of dense rows."""
    none = count.new_zeros(len(count), 0)
    moments = Moments(none, none, none)
    if columns.kinds[0] == "multinomial":
        return Tables(count, none, none, cells, moments, {}, dtype)
    return Tables(count, cells, count[:, None].expand_as(cells), none, moments, {}, dtype)
