"""The E step of a mixture, as a table of all rows or in one pass; a row counts as often as its weight says."""

from dataclasses import replace

import torch
from torch import Tensor

from ppmodels.base import Data
from ppmodels.clustering import _incomplete
from ppmodels.clustering._covariance import Family
from ppmodels.clustering._gaussian import moments
from ppmodels.clustering._statistics import Statistics


def log_joint(data: Data, log_weights: Tensor, loc: Tensor, factor: Tensor) -> Tensor:
    """Return log p(x_n, z_n = k | theta), (N, K)."""
    return log_weights + _incomplete.log_density(data.observed["x"], loc, factor)


def expected(data: Data, log_weights: Tensor, loc: Tensor, factor: Tensor) -> tuple[Statistics, Tensor]:
    """Return the statistics expected under p(z | x, theta), and the log likelihood, ()."""
    x = data.observed["x"]
    statistics, log_likelihood = _incomplete.expected(x, log_weights, loc, factor, data.given.get("weight"))
    return replace(statistics, dtype=x.dtype), log_likelihood


def memberships(log_joint: Tensor, data: Data) -> tuple[Tensor, Tensor]:
    """Return q(z) = p(z | x, theta), (N, K), and the log likelihood, ()."""
    return log_joint.softmax(-1), weighted(log_joint.logsumexp(-1), data)


def bound(q: Tensor, log_joint: Tensor, data: Data) -> Tensor:
    """Return E_q log p(x, z | theta) - E_q log q(z), ()."""
    return weighted(torch.where(q > 0, q * (log_joint - q.log()), 0.0).sum(-1), data)


def sums(q: Tensor, data: Data, family: Family) -> Statistics:
    """Return the statistics of these memberships, (N, K).

    Raises: ValueError when a value is missing: what is expected of it depends on theta.
    """
    x, weight = data.observed["x"], data.given.get("weight")
    if x.sum().isnan():
        raise ValueError("x has missing values, whose expectation needs theta; take `statistics` and `maximise`")
    triangular = family in ("full", "tied")
    return Statistics(*moments(q if weight is None else q * weight[:, None], x, triangular), x.dtype)


def weighted(per_row: Tensor, data: Data) -> Tensor:
    """Return the sum over rows, each as often as its weight says, ()."""
    weight = data.given.get("weight")
    return (per_row if weight is None else per_row * weight).sum(dtype=torch.float64)
