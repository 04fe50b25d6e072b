"""Log p(x | class) of naive Bayes at given parameters: products of matrices over all rows and classes."""

import math

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
    if masked is not None:
        return _of_chunk(columns, theta, x, masked)
    table = theta["class_prob"].new_empty(len(x), len(theta["class_prob"]))
    size = max(1, CHUNK // max(1, x.shape[1]))
    for start in range(0, len(x), size):
        rows = x[start : start + size]
        score = _of_chunk(columns, theta, rows, False)
        table[start : start + size] = _of_chunk(columns, theta, rows, True) if score.sum().isnan() else score
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


def _of_chunk(columns: Columns, theta: Theta, x: Tensor, masked: bool) -> Tensor:
    """The sum over the kinds of columns that there are, (n, C)."""
    score = torch.zeros((), dtype=theta["class_prob"].dtype, device=x.device)
    if "loc" in theta:
        score = score + _gaussian(columns.take(x, "gaussian"), theta["loc"], theta["precision"], masked)
    if "rate" in theta:
        score = score + _binary(columns.take(x, "bernoulli").to(theta["rate"]), theta["rate"], masked)
    if "word_prob" in theta:
        log_prob = theta["word_prob"].clamp(min=TINY).log()
        score = score + columns.take(x, "multinomial").to(log_prob) @ log_prob.mT
    for column, levels in columns.tables.items():
        table = theta[f"table_{column}"].clamp(min=TINY).log()  # (C, L)
        hot = x[:, column, None] == torch.arange(levels, device=x.device)  # (n, L); none where missing
        score = score + hot.to(table) @ table.mT
    return score


def _binary(x: Tensor, rate: Tensor, masked: bool) -> Tensor:
    """One product of the columns, and a second one of which are there, (n, C)."""
    one, zero = rate.clamp(min=TINY).log(), (1 - rate).clamp(min=TINY).log()  # (C, B)
    if not masked:
        return torch.addmm(zero.sum(-1), x, (one - zero).mT)
    return x.nan_to_num(0.0) @ (one - zero).mT + (~x.isnan()).to(zero) @ zero.mT


def _gaussian(x: Tensor, loc: Tensor, precision: Tensor, masked: bool) -> Tensor:
    """Two products, of the columns and of their squares, taken from the classes' middle, (n, C)."""
    origin = loc.mean(0)  # (G,)
    y, loc = x.to(loc) - origin, loc - origin
    constant = (precision.log() - math.log(2 * math.pi) - precision * loc.square()) / 2  # (C, G)
    if not masked:
        score = torch.addmm(constant.sum(-1), y, (precision * loc).mT)
        return score.addmm(y.square(), precision.mT, alpha=-0.5)
    there, y = (~y.isnan()).to(loc), y.nan_to_num(0.0)
    return there @ constant.mT + y @ (precision * loc).mT - y.square() @ precision.mT / 2
