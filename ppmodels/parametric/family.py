"""What a parametric family of laws is: a density with named parameters, and where the theory of its peak holds."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.distributions import constraints

Range = Literal["real", "positive", "unit"]


class Irregular(ValueError):
    """The theory that standard errors stand on does not hold here; the message is the reason in one line."""


class Family:
    """A family of laws of one number, p(x | theta), all of it batched over data sets in front.

    parameters: the names of theta's entries. ranges: where each may lie.
    exact: `start` is the maximum of the likelihood itself, where nothing is censored.
    smooth: the log density has a second derivative in theta everywhere, so minus it is information.
    """

    parameters: ClassVar[tuple[str, ...]]
    ranges: ClassVar[tuple[Range, ...]]
    support: ClassVar[Any] = constraints.real
    values: ClassVar[str] = "finite numbers"
    exact: ClassVar[bool] = True
    smooth: ClassVar[bool] = True

    def log_prob(self, x: Tensor, theta: Tensor) -> Tensor:
        """Return log p(x | theta), (..., N), of x (..., N) at theta (..., P)."""
        raise NotImplementedError

    def log_survival(self, x: Tensor, theta: Tensor) -> Tensor:
        """Return log P(X > x), (..., N): what a row says that was censored on the right."""
        raise ValueError(f"{self} takes no censored rows")

    def log_cdf(self, x: Tensor, theta: Tensor) -> Tensor:
        """Return log P(X <= x), (..., N): what a row says that was censored on the left."""
        raise ValueError(f"{self} takes no censored rows")

    def start(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the maximum of the likelihood where there is a formula, else a point near it, (..., P)."""
        raise NotImplementedError

    def information(self, theta: Tensor) -> Tensor:
        """Return Fisher's information of one observation, (..., P, P); Raises Irregular where there is none."""
        raise NotImplementedError

    def edge(self, theta: Tensor) -> tuple[Tensor, str]:
        """Return which theta (..., P) lie where the theory fails, (...), and why, in words."""
        return torch.zeros_like(theta[..., 0], dtype=torch.bool), ""

    def constrain(self, eta: Tensor) -> Tensor:
        """Return theta of real numbers eta, (..., P)."""
        maps = {"real": lambda t: t, "positive": torch.exp, "unit": torch.sigmoid}
        return torch.stack([maps[r](t) for r, t in zip(self.ranges, eta.unbind(-1), strict=True)], -1)

    def unconstrain(self, theta: Tensor) -> Tensor:
        """Return the real numbers of theta, (..., P)."""
        maps = {"real": lambda t: t, "positive": torch.log, "unit": torch.logit}
        return torch.stack([maps[r](t) for r, t in zip(self.ranges, theta.unbind(-1), strict=True)], -1)


def columns(theta: Tensor) -> tuple[Tensor, ...]:
    """The parameters, (..., 1) each, so that they broadcast over rows."""
    return theta[..., None].unbind(-2)


def mean(x: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean over rows, (...)."""
    return (weight * x).sum(-1) / weight.sum(-1)


def median(x: Tensor, weight: Tensor) -> Tensor:
    """Return a weighted median over rows, (...); between two, their middle."""
    x, order = x.expand(weight.shape).sort(-1)
    share = weight.gather(-1, order).cumsum(-1)
    half = share[..., -1:] / 2
    close = 1e-12 * half
    low, high = ((share < half - close).sum(-1), (share <= half + close).sum(-1).clamp(max=x.shape[-1] - 1))
    return (x.gather(-1, low[..., None]) + x.gather(-1, high[..., None]))[..., 0] / 2
