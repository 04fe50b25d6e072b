"""Pyro distributions of a class that may be unknown, and of the columns of a row given its class."""

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from ppmodels.base import Theta
from ppmodels.classification._columns import Columns
from ppmodels.classification._scores import log_density


class PartlyKnown(TorchDistribution):
    """Categorical(prob), (C,), where -1 says that the class is not known: its probability is 1, as of anything."""

    arg_constraints: Any = {}
    support: Any = constraints.real

    def __init__(self, prob: Tensor, shape: Any = ()) -> None:
        self.prob = prob
        super().__init__(torch.Size(shape), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "PartlyKnown":
        return PartlyKnown(self.prob, batch_shape)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size((*sample_shape, *self.batch_shape))
        return torch.multinomial(self.prob, shape.numel(), replacement=True).reshape(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return one_hot(value, self.prob) @ self.prob.log()


class ClassColumns(TorchDistribution):
    """Independent columns, (D,), given the class y, (N,); where that is -1, the mixture of all classes.

    With `PartlyKnown` for y, rows score p(x, y) where y is known and p(x) where it is not. A missing value, NaN, is
    summed out. words: how many a sampled row has in its multinomial columns.
    """

    arg_constraints: Any = {}
    support: Any = constraints.real_vector

    def __init__(self, y: Tensor, theta: Theta, columns: Columns, words: int, shape: Any = None) -> None:
        self.y, self.theta, self.columns, self.words = y, theta, columns, words
        shape = torch.Size(y.shape if shape is None else shape)
        super().__init__(shape, torch.Size((len(columns.kinds),)), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "ClassColumns":
        return ClassColumns(self.y, self.theta, self.columns, self.words, batch_shape)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size((*sample_shape, *self.batch_shape))
        theta, y, places = self.theta, self.y.expand(shape).long(), self.columns.places
        x = theta["class_prob"].new_zeros(*shape, *self.event_shape)
        if "loc" in theta:
            sd = theta["precision"].rsqrt()
            x[..., places["gaussian"]] = theta["loc"][y] + sd[y] * torch.randn_like(theta["loc"][y])
        if "rate" in theta:
            x[..., places["bernoulli"]] = torch.bernoulli(theta["rate"][y])
        if "word_prob" in theta:
            drawn = torch.distributions.Multinomial(self.words, theta["word_prob"][y], validate_args=False)
            x[..., places["multinomial"]] = drawn.sample()
        for column in self.columns.tables:
            x[..., column] = torch.distributions.Categorical(theta[f"table_{column}"][y]).sample().to(x)
        return x

    def log_prob(self, value: Tensor) -> Tensor:
        table = log_density(self.columns, self.theta, value, masked=True)  # (N, C)
        known = one_hot(self.y, table)
        mixed = (table + self.theta["class_prob"].log()).logsumexp(-1)
        score = (known * table).sum(-1) + (1 - known.sum(-1)) * mixed
        return score + coefficient(self.columns, value)


def one_hot(y: Tensor, like: Tensor) -> Tensor:
    """Return (N, C) with a 1 for the class of each row, and none where it is unknown."""
    return (y[..., None] == torch.arange(like.shape[-1], device=y.device)).to(like)


def coefficient(columns: Columns, x: Tensor) -> Tensor:
    """Return log (sum of counts)! / product of counts!, (N,), or 0 without multinomial columns."""
    if "multinomial" not in columns.kinds:
        return torch.zeros((), dtype=x.dtype, device=x.device)
    counts = columns.take(x, "multinomial")
    return (counts.sum(-1) + 1).lgamma() - (counts + 1).lgamma().sum(-1)
