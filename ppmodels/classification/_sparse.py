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


class SparseSums:
    """Rows (C,) and cells (C, V) by class, which batches of sparse rows are added to in place."""

    def __init__(self, columns: Columns, classes: int) -> None:
        kinds = set(columns.kinds)
        if kinds not in ({"multinomial"}, {"bernoulli"}):
            raise ValueError("sparse rows need columns that are all multinomial, or all bernoulli")
        self.columns, self.classes, self.binary = columns, classes, kinds == {"bernoulli"}
        self.count = np.zeros(classes)
        self.cells = np.zeros(classes * len(columns.kinds))

    def add(self, x: Any, y: Tensor, weight: Tensor | None) -> None:
        """Add rows of classes y, (N,); those of class -1 do not count."""
        start, column, value = parts_of(x)
        width = len(self.columns.kinds)
        if x.shape[1] != width:
            raise ValueError(f"x must be (rows, {width}); it is {tuple(x.shape)}")
        self._check(start, column, value)
        label = y.numpy().astype(np.int64)
        row_weight = (label >= 0).astype(float) if weight is None else np.where(label >= 0, weight.numpy(), 0.0)
        safe = np.maximum(label, 0)
        self.count += np.bincount(safe, row_weight, self.classes)
        length = np.diff(start)
        cell = np.repeat(safe * width, length) + column
        heavy = value if weight is None and (label >= 0).all() else value * np.repeat(row_weight, length)
        np.add.at(self.cells, cell, heavy)

    def tables(self) -> Tables:
        """Return the sums as those of dense rows."""
        sums, count = empty(self.columns, self.classes, torch.float64), torch.from_numpy(self.count)
        cells = torch.from_numpy(self.cells).reshape(self.classes, -1)
        if not self.binary:
            return Tables(count, sums.ones, sums.seen, cells, sums.moments, {})
        return Tables(count, cells, count[:, None].expand_as(cells), sums.words, sums.moments, {})

    def _check(self, start: np.ndarray, column: np.ndarray, value: np.ndarray) -> None:
        wrong = ~((value == 1) | (value == 0)) if self.binary else ~((value >= 0) & (value < np.inf))
        if wrong.any():
            place = int(wrong.argmax())
            row = int(np.searchsorted(start, place, side="right")) - 1
            what = "0 or 1" if self.binary else "a count of 0 or more"
            raise ValueError(f"x is {value[place]} in row {row}, column {column[place]}; it must be {what}")


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
