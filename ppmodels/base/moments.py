"""How many values, their mean and their scatter about it: sums that add, and lose no digits."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """How many values, or their weight, their mean, and their squares about it, one shape; those of two sets add.

    A number multiplies the weight. Where there are no values the mean is whatever it is, and scatter 0.

    Source: Chan, Golub and LeVeque (1983), American Statistician 37, equations 2.1.
    """

    count: Tensor
    mean: Tensor
    scatter: Tensor

    def __add__(self, other: "Moments") -> "Moments":
        count, gap = self.count + other.count, other.mean - self.mean
        share = torch.where(count > 0, other.count / count, 0.0)
        return Moments(count, self.mean + share * gap, self.scatter + other.scatter + self.count * share * gap.square())

    def __mul__(self, factor: float) -> "Moments":
        return Moments(self.count * factor, self.mean, self.scatter * factor)
