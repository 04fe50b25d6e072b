"""A spring in a noisy world: the one diffusion whose every law is Gaussian and known."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ppmodels.diffusion._noise import standard_normal


@dataclass(frozen=True)
class OrnsteinUhlenbeck:
    r"""Relaxation against noise, :math:`dx = -\gamma x\, dt + \sigma\, dW`.

    Its Fokker-Planck equation has drift :math:`A = -\gamma x` and diffusion :math:`B = \sigma^2 / 2`.

    Source: Gardiner (2009), Stochastic Methods, section 3.8.4.
    """

    gamma: float = 1.0
    sigma: float = 1.0

    def __post_init__(self):
        if not self.gamma > 0 or not self.sigma > 0:
            raise ValueError(f"gamma and sigma must be positive; got {self.gamma} and {self.sigma}")

    @property
    def stationary_variance(self) -> float:
        return self.sigma**2 / (2 * self.gamma)

    def mean(self, x0: Tensor, t: float) -> Tensor:
        """E[x_t | x_0], shaped like x0."""
        return math.exp(-self.gamma * t) * x0

    def variance(self, t: float) -> float:
        """Var[x_t | x_0], whatever x_0."""
        return -self.stationary_variance * math.expm1(-2 * self.gamma * t)

    def drift(self, x: Tensor) -> Tensor:
        """A(x) of the Fokker-Planck equation."""
        return -self.gamma * x

    def diffusion(self, x: Tensor) -> Tensor:
        """B(x) of the Fokker-Planck equation, constant."""
        return torch.full_like(x, self.sigma**2 / 2)

    def simulate(self, x0: Tensor, interval: float, steps: int, generator: torch.Generator | None = None) -> Tensor:
        """Values at 0, interval, 2 interval, ..., (steps + 1, ...), exact for any interval."""
        path, width = [x0], self.variance(interval) ** 0.5
        for _ in range(steps):
            path.append(self.mean(path[-1], interval) + width * standard_normal(x0, generator))
        return torch.stack(path)
