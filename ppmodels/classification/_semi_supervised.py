"""The E step where some classes are known: there q is what is known, elsewhere the posterior."""

from typing import Any

import torch
from torch import Tensor

from ppmodels.base import Data, Theta
from ppmodels.classification._laws import one_hot
from ppmodels.classification._rows import tables
from ppmodels.classification._sparse import SparseTables, is_sparse
from ppmodels.classification._tables import Tables


def statistics(model: Any, theta: Theta, data: Data) -> tuple[Tables, Tensor]:
    """Return the sums expected under the classes' posterior, and the log likelihood, ()."""
    q, score = memberships(model.log_joint(theta, data), data)
    return sums(model, q, data), score


def sums(model: Any, q: Tensor, data: Data) -> Tables:
    """Return the sums of rows whose memberships are q, (N, C), each as often as its weight says."""
    return tables(model._kinds, data.observed["x"], q * _weight(data)[:, None])


def memberships(log_joint: Tensor, data: Data) -> tuple[Tensor, Tensor]:
    """Return q(y), (N, C), and the log likelihood of columns and known classes, (), from log p(x, y), (N, C)."""
    known = one_hot(data.observed["y"], log_joint)
    unknown = 1 - known.sum(-1)  # (N,)
    q = known + unknown[:, None] * log_joint.softmax(-1)
    score = (known * log_joint).sum(-1) + unknown * log_joint.logsumexp(-1)
    return q, total(score, data)


def bound(q: Tensor, log_joint: Tensor, data: Data) -> Tensor:
    """Return E_q log p(x, y | theta) - E_q log q(y), ()."""
    return total(torch.where(q > 0, q * (log_joint - q.log()), 0.0).sum(-1), data)


def random_memberships(model: Any, data: Data) -> Tensor:
    """Return what is known, and random shares, at most as even as a coin, of rows whose class is not, (N, C)."""
    model.check(data)
    y, x = data.observed["y"], data.observed["x"]
    drawn = torch.rand(len(y), model.classes, dtype=x.dtype, device=x.device).log().neg()  # exponential
    known = one_hot(y, drawn)
    return known + (1 - known.sum(-1, keepdim=True)) * drawn / drawn.sum(-1, keepdim=True)


def labelled(model: Any, data: Data) -> Any:
    """Return the sums of rows whose classes are all known: `Tables`, or `SparseTables` of sparse rows.

    Raises: ValueError that names the first row of unknown class: with one, the posterior is a mixture.
    """
    y = data.observed["y"]
    unknown = (y < 0).nonzero()
    if len(unknown):
        raise ValueError(f"the class of row {int(unknown[0])} is unknown; the exact posterior needs all, em does not")
    x = data.observed["x"]
    if is_sparse(x):
        return SparseTables.of(model._kinds, x, y, model.classes, data.given.get("weight"))
    return sums(model, one_hot(y, y.new_empty(model.classes, dtype=x.dtype)), data)


def total(rows: Tensor, data: Data) -> Tensor:
    """Return the sum over rows, (N,), each as often as its weight says, ()."""
    weight = _weight(data)
    return torch.where(weight > 0, rows * weight, 0.0).sum(dtype=torch.float64)  # also of what cannot be


def _weight(data: Data) -> Tensor:
    """How often each row counts, (N,)."""
    weight, x = data.given.get("weight"), data.observed["x"]
    return torch.ones(len(x), dtype=x.dtype, device=x.device) if weight is None else weight
