"""Counts of sparse rows: one addition for each cell that is there, into sums that stay where they are."""

from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ppmodels.base import Theta
from ppmodels.classification._columns import Columns
from ppmodels.classification._scores import TINY
from ppmodels.classification._tables import Tables, empty


def is_sparse(x: Any) -> bool:
    """Whether x is SciPy's or torch's sparse matrix."""
    return (isinstance(x, Tensor) and x.layout != torch.strided) or hasattr(x, "tocsr")


def parts_of(x: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where rows begin, the columns, and the values of a sparse matrix by rows."""
    if isinstance(x, Tensor) and x.layout == torch.sparse_csr:
        return x.crow_indices().numpy(), x.col_indices().numpy(), x.values().numpy()
    if isinstance(x, Tensor):
        x = x.coalesce()
        x = sparse.coo_array((x.values().numpy(), tuple(x.indices().numpy())), shape=tuple(x.shape))
    x = x.tocsr()
    return x.indptr, x.indices, x.data


def check_cells(columns: Columns, x: Any) -> None:
    """Raise a ValueError that names the first cell that no column can hold; sparse columns are all of one kind."""
    if set(columns.kinds) not in ({"multinomial"}, {"bernoulli"}):
        raise ValueError("sparse rows need columns that are all multinomial, or all bernoulli")
    if x.shape[1] != len(columns.kinds):
        raise ValueError(f"x must be (rows, {len(columns.kinds)}); it is {tuple(x.shape)}")
    start, column, value = parts_of(x)
    binary = columns.kinds[0] == "bernoulli"
    wrong = ~((value == 1) | (value == 0)) if binary else ~((value >= 0) & (value < np.inf))
    if wrong.any():
        place = int(wrong.argmax())
        row = int(np.searchsorted(start, place, side="right")) - 1
        what = "0 or 1" if binary else "a count of 0 or more"
        raise ValueError(f"x is {value[place]} in row {row}, column {column[place]}; it must be {what}")


class SparseSums:
    """Rows (C,) and cells (C, V) by class, which batches of sparse rows are added to in place."""

    def __init__(self, columns: Columns, classes: int) -> None:
        self.columns, self.classes = columns, classes
        self.count = np.zeros(classes)
        self.cells = np.zeros(classes * len(columns.kinds))

    def add(self, x: Any, y: Tensor, weight: Tensor | None) -> None:
        """Add rows of classes y, (N,); those of class -1 do not count."""
        check_cells(self.columns, x)
        start, column, value = parts_of(x)
        label = y.numpy().astype(np.int64)
        row_weight = (label >= 0).astype(float) if weight is None else np.where(label >= 0, weight.numpy(), 0.0)
        safe = np.maximum(label, 0)
        self.count += np.bincount(safe, row_weight, self.classes)
        length = np.diff(start)
        cell = np.repeat(safe * len(self.columns.kinds), length) + column
        heavy = value if weight is None and (label >= 0).all() else value * np.repeat(row_weight, length)
        np.add.at(self.cells, cell, heavy)

    def tables(self) -> Tables:
        """Return the sums as those of dense rows."""
        cells = torch.from_numpy(self.cells).reshape(self.classes, -1)
        return _tables(self.columns, torch.from_numpy(self.count), cells, torch.float64)


def sparse_tables(columns: Columns, x: Any, q: Tensor) -> Tables:
    """Return the sums of sparse rows whose memberships are q, (N, C)."""
    start, column, value = parts_of(x)
    rows = sparse.csr_array((value.astype(float, copy=False), column, start), shape=tuple(x.shape))
    cells = torch.from_numpy(rows.T @ q.double().numpy()).mT.contiguous()  # (C, V)
    return _tables(columns, q.double().sum(0), cells, torch.from_numpy(value[:0]).dtype)


def sparse_log_density(columns: Columns, theta: Theta, x: Any) -> Tensor:
    """Return log p(x_n | y_n = c, theta) of sparse rows, (N, C), without the multinomial coefficient."""
    start, column, value = parts_of(x)
    if "rate" in theta:
        one, zero = theta["rate"].clamp(min=TINY).log(), (1 - theta["rate"]).clamp(min=TINY).log()  # (C, V)
        weights, offset = one - zero, zero.sum(-1)
    else:
        weights, offset = theta["word_prob"].clamp(min=TINY).log(), torch.zeros(len(theta["class_prob"]))
    rows = sparse.csr_array((value, column, start), shape=tuple(x.shape))
    return torch.from_numpy(rows @ weights.mT.contiguous().numpy()) + offset


def _tables(columns: Columns, count: Tensor, cells: Tensor, dtype: torch.dtype) -> Tables:
    """Rows (C,) and cells (C, V) as the sums of dense rows."""
    sums = empty(columns, len(count), dtype)
    if columns.kinds[0] == "multinomial":
        return Tables(count, sums.ones, sums.seen, cells, sums.moments, {}, dtype)
    return Tables(count, cells, count[:, None].expand_as(cells), sums.words, sums.moments, {}, dtype)
