"""The expected log density of rows and classes, which their sums alone say."""

import math

import torch
from torch import Tensor

from ppmodels.base import Theta
from ppmodels.classification._tables import Tables


def expected_log_joint(sums: Tables, theta: Theta) -> Tensor:
    """Return E_q log p(x, y | theta), (), without multinomial coefficients: q is what the sums were taken under."""
    total = torch.xlogy(sums.count, theta["class_prob"].double()).sum()
    if "rate" in theta:
        rate = theta["rate"].double()
        total = total + (torch.xlogy(sums.ones, rate) + torch.special.xlog1py(sums.seen - sums.ones, -rate)).sum()
    if "word_prob" in theta:
        total = total + torch.xlogy(sums.words, theta["word_prob"].double()).sum()
    for column, table in sums.levels.items():
        total = total + torch.xlogy(table, theta[f"table_{column}"].double()).sum()
    if "loc" in theta:
        moments, precision = sums.moments, theta["precision"].double()
        misfit = moments.scatter + moments.count * (moments.mean - theta["loc"].double()).square()
        normal = moments.count * (precision.log() - math.log(2 * math.pi)) - precision * misfit
        total = total + normal.sum() / 2
    return total
