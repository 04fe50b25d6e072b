"""Rows of columns, dense or sparse: what is wrong with them, their sums by class, and their scores."""

from typing import Any

import torch
from torch import Tensor

from ppmodels.base import Data, Theta
from ppmodels.classification import _laws, _scores, _tables
from ppmodels.classification._columns import Columns, check_labels
from ppmodels.classification._sparse import cells_of, check_cells, is_sparse, sparse_log_density, sparse_tables
from ppmodels.classification._tables import Tables


def check_data(model: Any, data: Data) -> None:
    """Raise a ValueError of one line that names the first cell, class or weight that cannot be."""
    x, weight = data.observed["x"], data.given.get("weight")
    if is_sparse(x):
        check_cells(model._kinds, x)
    else:
        model._kinds.check(x, data.coords.get("feature", ()))
    check_labels(data.observed["y"], model.classes)
    if weight is not None and len(wrong := (~((weight >= 0) & weight.isfinite())).nonzero()):
        raise ValueError(f"weight is {weight[wrong[0, 0]].item()} in row {int(wrong[0, 0])}; it must be 0 or more")


def tables(columns: Columns, x: Any, q: Tensor) -> Tables:
    """Return the sums of rows x (N, D) whose memberships are q (N, C)."""
    return sparse_tables(columns, x, q) if is_sparse(x) else _tables.tables(columns, x, q)


def log_density(columns: Columns, theta: Theta, x: Any) -> Tensor:
    """Return log p(x_n | y_n = c, theta), (N, C), without the multinomial coefficient."""
    return sparse_log_density(columns, theta, x) if is_sparse(x) else _scores.log_density(columns, theta, x)


def coefficient(columns: Columns, x: Any) -> Tensor:
    """Return the multinomial coefficient's logarithm, (N,), or 0 without multinomial columns."""
    if not is_sparse(x) or "multinomial" not in columns.kinds:
        return _laws.coefficient(columns, x)
    row, _, value = (torch.from_numpy(part) for part in cells_of(x))
    total, parts = value.new_zeros(2, x.shape[0]).index_add(1, row, torch.stack([value, (value + 1).lgamma()]))
    return (total + 1).lgamma() - parts
