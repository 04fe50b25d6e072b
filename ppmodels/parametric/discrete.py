"""Families of counts and of yes or no."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import constraints

from ppmodels.parametric._incomplete_gamma import log_gamma_cdf, log_gamma_survival
from ppmodels.parametric.family import Family, columns, mean


@dataclass(frozen=True)
class Bernoulli(Family):
    r"""Yes or no, :math:`p(x) = \theta^x (1 - \theta)^{1 - x}`, with information 1 / (theta (1 - theta))."""

    parameters, ranges = ("probability",), ("unit",)
    support, values = constraints.boolean, "0 or 1"

    def log_prob(self, x: Tensor, theta: Tensor) -> Tensor:
        (p,) = columns(theta)
        return torch.xlogy(x, p) + torch.special.xlog1py(1 - x, -p)

    def start(self, x: Tensor, weight: Tensor) -> Tensor:
        return mean(x, weight)[..., None]

    def information(self, theta: Tensor) -> Tensor:
        return (1 / (theta * (1 - theta)))[..., None]

    def edge(self, theta: Tensor) -> tuple[Tensor, str]:
        p = theta[..., 0]
        return (p <= 0) | (p >= 1), "all rows are alike, so probability is at the edge of its range"


@dataclass(frozen=True)
class Poisson(Family):
    r"""Counts, :math:`p(x) = \lambda^x e^{-\lambda} / x!`, with information 1 / lambda."""

    parameters, ranges = ("rate",), ("positive",)
    support, values = constraints.nonnegative_integer, "counts 0, 1, 2, ..."

    def log_prob(self, x: Tensor, theta: Tensor) -> Tensor:
        (rate,) = columns(theta)
        return torch.xlogy(x, rate) - rate - (x + 1).lgamma()

    def log_survival(self, x: Tensor, theta: Tensor) -> Tensor:
        (rate,) = columns(theta)
        return log_gamma_cdf(x + 1, rate)  # as the wait for x + 1 events ends before 1

    def log_cdf(self, x: Tensor, theta: Tensor) -> Tensor:
        (rate,) = columns(theta)
        return log_gamma_survival(x + 1, rate)

    def start(self, x: Tensor, weight: Tensor) -> Tensor:
        return mean(x, weight)[..., None]

    def information(self, theta: Tensor) -> Tensor:
        return (1 / theta)[..., None]

    def edge(self, theta: Tensor) -> tuple[Tensor, str]:
        return theta[..., 0] <= 0, "all counts are 0, so rate is at the edge of its range"
