"""Log p(x, y) of a row given other rows, every parameter integrated out: from tables with that row, or without it."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ppmodels.base.moments import Moments
from ppmodels.classification._columns import Columns
from ppmodels.classification._conjugate import mean_of, normal_gamma
from ppmodels.classification._scores import log_density
from ppmodels.classification._tables import Tables

CHUNK = 2**18  # numbers of the largest temporary


def log_joint(model: Any, columns: Columns, sums: Tables, x: Tensor) -> Tensor:
    """Return log p(x, y = c | the rows summed up), (N, C), without the multinomial coefficient.

    Binary and categorical columns are predicted by posterior means, real ones by Student's t, counted ones by the
    Dirichlet-multinomial.
    """
    theta = mean_of(model, sums)
    kept = {name: value for name, value in theta.items() if name not in ("loc", "precision", "word_prob")}
    if not columns.kinds.count("bernoulli") + len(columns.tables):
        table = theta["class_prob"].log().expand(len(x), -1)
    else:
        table = theta["class_prob"].log() + log_density(columns, kept, x)
    if "loc" in theta:
        law = [part[None] for part in normal_gamma(model, sums.moments)]
        size = max(1, CHUNK // max(1, sums.moments.mean.numel()))
        real = columns.take(x, "gaussian").double().split(size)
        table = table + torch.cat([_student(rows[:, None], *law) for rows in real])
    if "word_prob" in theta:
        counts, prior = columns.take(x, "multinomial").double(), model.alpha + sums.words
        by_class = [_dirichlet_multinomial(counts, p) for p in prior]
        table = table + torch.stack(by_class, -1)
    return table


def leave_one_out(model: Any, columns: Columns, sums: Tables, x: Tensor, y: Tensor) -> Tensor:
    """Return log p(x_n, y = c | all rows but n), (N, C): exact, in one pass, by taking each row out of the sums.

    Only the row's own class changes, and how many rows there are.
    """
    table = log_joint(model, columns, sums, x)
    total, classes = sums.count.sum() + model.alpha * model.classes, sums.count[y]
    own = ((classes - 1 + model.alpha) / (total - 1)).log()  # (N,)
    table = table + (total / (total - 1)).log()
    for rows in torch.arange(len(x)).split(max(1, CHUNK // max(1, x.shape[1]))):
        own[rows] += _without(model, columns, sums, x[rows], y[rows])
    return table.scatter(1, y[:, None], own[:, None])


def _without(model: Any, columns: Columns, sums: Tables, x: Tensor, y: Tensor) -> Tensor:
    """Log p(x_n | the other rows of its class), (n,)."""
    score = sum(_without_parts(model, columns, sums, x, y))
    return torch.as_tensor(score)


def _without_parts(model: Any, columns: Columns, sums: Tables, x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """One term a kind of column, (n,) each."""
    alpha = model.alpha
    binary = columns.take(x, "bernoulli").double()
    if binary.shape[1]:
        there, ones = (~binary.isnan()).double(), binary.nan_to_num(0.0)
        same = torch.where(ones > 0, sums.ones[y], sums.seen[y] - sums.ones[y]) - 1 + alpha
        rate = same / (sums.seen[y] - 1 + 2 * alpha)
        yield (torch.where(there > 0, rate, 1.0).log()).sum(-1)
    for column in columns.tables:
        value, counts = x[:, column], sums.levels[column][y] + alpha  # (n, L)
        mine = counts.gather(1, value.nan_to_num(0.0).long()[:, None])[:, 0]
        yield torch.where(value.isnan(), 0.0, ((mine - 1) / (counts.sum(-1) - 1)).log())
    counts = columns.take(x, "multinomial").double()
    if counts.shape[1]:
        yield _dirichlet_multinomial(counts, alpha + sums.words[y] - counts)
    real = columns.take(x, "gaussian").double()
    if real.shape[1]:
        count, mean, scatter = sums.moments.count[y], sums.moments.mean[y], sums.moments.scatter[y]
        gap, left = real.nan_to_num(0.0) - mean, count - 1
        middle = torch.where(left > 0, mean - gap / left, 0.0)
        spread = torch.where(left > 0, scatter - count / left * gap.square(), 0.0).clamp(min=0)
        yield _student(real, *normal_gamma(model, Moments(left, middle, spread)))


def _student(x: Tensor, mean: Tensor, rows: Tensor, shape: Tensor, rate: Tensor) -> Tensor:
    """Log density of the next value, summed over the columns that are there; all (..., G)."""
    spread = 2 * rate * (1 + 1 / rows)  # squared scale times degrees of freedom
    log_norm = (shape + 0.5).lgamma() - shape.lgamma() - (math.pi * spread).log() / 2
    score = log_norm - (shape + 0.5) * ((x - mean).square() / spread).log1p()
    return torch.where(x.isnan(), 0.0, score).sum(-1)


def _dirichlet_multinomial(counts: Tensor, prior: Tensor) -> Tensor:
    """Log probability of words in their order, counts (n, V) under Dirichlet(prior), (V,) or (n, V): (n,)."""
    total = prior.sum(-1)
    words = (prior + counts).lgamma() - prior.lgamma()
    return words.sum(-1) - (total + counts.sum(-1)).lgamma() + total.lgamma()
