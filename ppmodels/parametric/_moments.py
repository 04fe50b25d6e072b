"""How many numbers, their mean and their scatter about it: sums that add, and lose no digits."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """rows (), mean () and scatter () of some numbers; those of two sets add.

    Source: Chan, Golub and LeVeque (1983), American Statistician 37, equations 2.1.
    """

    rows: Tensor
    mean: Tensor
    scatter: Tensor

    def __add__(self, other: "Moments") -> "Moments":
        rows, gap = self.rows + other.rows, other.mean - self.mean
        pulled = self.rows * other.rows / rows * gap.square()
        return Moments(rows, self.mean + other.rows / rows * gap, self.scatter + other.scatter + pulled)
