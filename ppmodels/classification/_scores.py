"""Log p(x | class) of naive Bayes at given parameters: products of matrices over all rows and classes."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ppmodels.base import Theta
from ppmodels.classification._columns import Columns

CHUNK = 2**17  # numbers of the largest temporary
TINY = 1e-300  # stands for a probability of 0, so that 0 log 0 is 0 and not NaN


def log_density(columns: Columns, theta: Theta, x: Tensor, masked: bool | None = None) -> Tensor:
    """Return log p(x_n | y_n = c, theta), (N, C). A missing value, NaN, is summed out: it says nothing.

    masked: look for missing values; by default, where x has some. Multinomial columns are scored without their
    coefficient, which is the same for all classes.
    """
    scorers = _scorers(columns, theta)
    if masked is not None:
        return _sum(scorers, x, masked)
    table = theta["class_prob"].new_empty(len(x), len(theta["class_prob"]))
    size = max(1, CHUNK // max(1, x.shape[1]))
    for start in range(0, len(x), size):
        rows = x[start : start + size]
        score = _sum(scorers, rows, False)
        table[start : start + size] = _sum(scorers, rows, True) if score.sum().isnan() else score
    return table


def linear(columns: Columns, theta: Theta) -> tuple[Tensor, Tensor]:
    r"""Return weights (D,) and offset () of two classes' log odds, which are linear in binary and counted columns.

    .. math:: \log \frac{p(1 \mid x)}{p(0 \mid x)} = \log \frac{\pi_1}{\pi_0} + \sum_i x_i \log
        \frac{\theta_{1i}}{\theta_{0i}} + \sum_i (1 - x_i) \log \frac{1 - \theta_{1i}}{1 - \theta_{0i}}

    Real columns are linear too where both classes have the same variance.
    Raises: ValueError when there are not two classes, or a column is categorical or of unequal variances.
    """
    if len(theta["class_prob"]) != 2 or columns.tables:
        raise ValueError("log odds are linear for two classes without categorical columns")
    weights = theta["class_prob"].new_zeros(len(columns.kinds))
    prior = theta["class_prob"].log()
    offset = prior[1] - prior[0]
    if "rate" in theta:
        logit, none = theta["rate"].logit(), (-theta["rate"]).log1p()
        weights[columns.places["bernoulli"]] = logit[1] - logit[0]
        offset = offset + (none[1] - none[0]).sum()
    if "word_prob" in theta:
        log_prob = theta["word_prob"].log()
        weights[columns.places["multinomial"]] = log_prob[1] - log_prob[0]
    if "loc" in theta:
        loc, precision = theta["loc"], theta["precision"]
        if not torch.equal(precision[0], precision[1]):
            raise ValueError("the classes differ in variance, so their log odds are quadratic")
        weights[columns.places["gaussian"]] = precision[0] * (loc[1] - loc[0])
        offset = offset - (precision[0] * (loc[1].square() - loc[0].square())).sum() / 2
    return weights, offset


Scorer = Callable[[Tensor, bool], Tensor]  # rows (n, D), and whether some of their values are missing, to (n, C)


def _sum(scorers: Sequence[Scorer], x: Tensor, masked: bool) -> Tensor:
    total = scorers[0](x, masked)
    for scorer in scorers[1:]:
        total = total + scorer(x, masked)
    return total


def _scorers(columns: Columns, theta: Theta) -> list[Scorer]:
    """What each kind of columns adds, (n, C) from rows: all that depends on theta alone is computed here."""
    found: list[Scorer] = []
    if "loc" in theta:
        found.append(_gaussian(columns, theta["loc"], theta["precision"]))
    if "rate" in theta:
        found.append(_binary(columns, theta["rate"]))
    if "word_prob" in theta:
        log_prob = theta["word_prob"].clamp(min=TINY).log()
        found.append(lambda x, _: columns.take(x, "multinomial").to(log_prob) @ log_prob.mT)
    for column, levels in columns.tables.items():
        found.append(_categorical(column, levels, theta[f"table_{column}"].clamp(min=TINY).log()))
    return found


def _categorical(column: int, levels: int, table: Tensor) -> Scorer:
    """A row of the table for each level, and nothing where it is missing."""

    def score(x: Tensor, masked: bool) -> Tensor:
        hot = x[:, column, None] == torch.arange(levels, device=x.device)  # (n, L)
        return hot.to(table) @ table.mT

    return score


def _binary(columns: Columns, rate: Tensor) -> Scorer:
    """One product of the columns, and a second one of which are there."""
    one, zero = rate.clamp(min=TINY).log(), (1 - rate).clamp(min=TINY).log()  # (C, B)
    odds, all_zero = (one - zero).mT, zero.sum(-1)

    def score(x: Tensor, masked: bool) -> Tensor:
        x = columns.take(x, "bernoulli").to(zero)
        if not masked:
            return torch.addmm(all_zero, x, odds)
        return x.nan_to_num(0.0) @ odds + (~x.isnan()).to(zero) @ zero.mT

    return score


def _gaussian(columns: Columns, loc: Tensor, precision: Tensor) -> Scorer:
    """Two products, of the columns and of their squares, taken from the classes' middle."""
    origin = loc.mean(0)  # (G,)
    loc = loc - origin
    linear, quadratic = (precision * loc).mT, -precision.mT / 2  # (G, C)
    constant = (precision.log() - math.log(2 * math.pi) - precision * loc.square()) / 2  # (C, G)
    total = constant.sum(-1)

    def score(x: Tensor, masked: bool) -> Tensor:
        y = columns.take(x, "gaussian").to(loc) - origin
        if not masked:
            return torch.addmm(total, y, linear).addmm(y.square(), quadratic)
        there, y = (~y.isnan()).to(loc), y.nan_to_num(0.0)
        return there @ constant.mT + y @ linear + y.square() @ quadratic

    return score
