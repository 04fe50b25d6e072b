"""The E step where some classes are known: there q is what is known, elsewhere the posterior."""

from typing import Any

import torch
from torch import Tensor

from ppmodels.base import Data
from ppmodels.classification._laws import one_hot


def memberships(log_joint: Tensor, data: Data) -> tuple[Tensor, Tensor]:
    """Return q(y), (N, C), and the log likelihood of columns and known classes, (), from log p(x, y), (N, C)."""
    known = one_hot(data.observed["y"], log_joint)
    unknown = 1 - known.sum(-1)  # (N,)
    q = known + unknown[:, None] * log_joint.softmax(-1)
    score = (known * log_joint).sum(-1) + unknown * log_joint.logsumexp(-1)
    return q, score.sum(dtype=torch.float64)


def bound(q: Tensor, log_joint: Tensor) -> Tensor:
    """Return E_q log p(x, y | theta) - E_q log q(y), ()."""
    return torch.where(q > 0, q * (log_joint - q.log()), 0.0).sum(dtype=torch.float64)


def random_memberships(model: Any, data: Data) -> Tensor:
    """Return what is known, and random shares, at most as even as a coin, of rows whose class is not, (N, C)."""
    model.check(data)
    y, x = data.observed["y"], data.observed["x"]
    drawn = torch.rand(len(y), model.classes, dtype=x.dtype, device=x.device).log().neg()  # exponential
    known = one_hot(y, drawn)
    return known + (1 - known.sum(-1, keepdim=True)) * drawn / drawn.sum(-1, keepdim=True)


def labelled(data: Data, classes: int) -> tuple[Tensor, Tensor]:
    """Return x and one-hot classes, (N, C).

    Raises: ValueError that names the first row of unknown class: with one, the posterior is a mixture.
    """
    y, x = data.observed["y"], data.observed["x"]
    unknown = (y < 0).nonzero()
    if len(unknown):
        raise ValueError(f"the class of row {int(unknown[0])} is unknown; the exact posterior needs all, em does not")
    return x, (y[:, None] == torch.arange(classes, device=y.device)).to(x)
