"""Step sizes of stochastic approximation, and what theory says of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Polynomial:
    """a_t = scale / (shift + t)^power, t = 1, 2, ...

    Robbins and Monro ask for sum a_t = infinity, so that every point can be reached, and sum a_t^2 < infinity, so
    that the noise dies out: both hold where 1/2 < power <= 1.
    """

    scale: float
    shift: float = 0.0
    power: float = 1.0

    def __call__(self, t: int) -> float:
        """Return the size of step t, from 1."""
        return self.scale / (self.shift + t) ** self.power

    @property
    def reaches(self) -> bool:
        """Is the sum of the sizes infinite?"""
        return self.power <= 1

    @property
    def settles(self) -> bool:
        """Is the sum of their squares finite?"""
        return self.power > 0.5

    @property
    def converges(self) -> bool:
        """Do both of Robbins and Monro's conditions hold?"""
        return self.reaches and self.settles


@dataclass(frozen=True)
class Cyclical:
    """a_t = scale / 2 (cos(pi r_t) + 1), r_t the share of its cycle that is gone: large steps travel, small ones draw.

    Source: Zhang, Li, Zhang, Chen and Wilson (2020), ICLR, equation 1.
    """

    scale: float
    num_steps: int
    num_cycles: int

    def __call__(self, t: int) -> float:
        """Return the size of step t, from 1."""
        return 0.5 * self.scale * (math.cos(math.pi * self.gone(t)) + 1)

    def gone(self, t: int) -> float:
        """Return the share of its cycle that lies before step t, in [0, 1)."""
        length = math.ceil(self.num_steps / self.num_cycles)
        return (t - 1) % length / length


def find_root(
    noisy: Callable[[Tensor], Tensor], start: Tensor, sizes: Callable[[int], float], num_steps: int
) -> Tensor:
    """Return theta after theta <- theta - a_t g(theta), g a noisy value of an increasing function: its root.

    noisy: no derivative is asked for. With g = theta - x and a_t = 1 / t, theta is the mean of the x so far; with
        g = 1[x <= theta] - q it is the q-quantile of x.
    start: any shape: as many searches as it has elements, side by side.

    Source: Robbins and Monro (1951), Annals of Mathematical Statistics 22, 400-407.
    """
    theta = start.clone()
    for t in range(1, num_steps + 1):
        theta = theta - sizes(t) * noisy(theta)
    return theta


def limiting_variance(scale: float, slope: float = 1.0, noise: float = 1.0) -> float:
    """Return the limit of n Var(theta_n) under a_t = scale / t: a^2 s^2 / (2 a h - 1), h the slope at the root.

    Raises: ValueError where 2 a h <= 1: then theta comes nearer more slowly than 1 / sqrt(n).
    Source: Chung (1954), Annals of Mathematical Statistics 25, theorem 1; Sacks (1958).
    """
    if 2 * scale * slope <= 1:
        raise ValueError(f"the steps are too small: 2 scale slope must be above 1; it is {2 * scale * slope:g}")
    return scale**2 * noise**2 / (2 * scale * slope - 1)


def plateau_variance(size: float, slope: float = 1.0, noise: float = 1.0) -> float:
    """Return the variance at which constant steps stay: a s^2 / (h (2 - a h)).

    Raises: ValueError where the steps are too large to stay anywhere.
    """
    if not 0 < size * slope < 2:
        raise ValueError(f"size times slope must lie in (0, 2); it is {size * slope:g}")
    return size * noise**2 / (slope * (2 - size * slope))
