"""Families of real and of positive numbers."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import constraints

from ppmodels.parametric._incomplete_gamma import log_gamma_cdf, log_gamma_survival
from ppmodels.parametric.family import Family, Irregular, columns, mean, median


@dataclass(frozen=True)
class Exponential(Family):
    r"""Waiting times, :math:`p(x) = \lambda e^{-\lambda x}`, with information 1 / lambda^2."""

    parameters, ranges = ("rate",), ("positive",)
    support, values = constraints.nonnegative, "numbers >= 0"

    def log_prob(self, x: Tensor, theta: Tensor) -> Tensor:
        (rate,) = columns(theta)
        return rate.log() - rate * x

    def log_survival(self, x: Tensor, theta: Tensor) -> Tensor:
        return -columns(theta)[0] * x

    def log_cdf(self, x: Tensor, theta: Tensor) -> Tensor:
        return (-torch.expm1(-columns(theta)[0] * x)).log()

    def start(self, x: Tensor, weight: Tensor) -> Tensor:
        return 1 / mean(x, weight)[..., None]

    def information(self, theta: Tensor) -> Tensor:
        return theta.square().reciprocal()[..., None]

    def edge(self, theta: Tensor) -> tuple[Tensor, str]:
        return theta[..., 0].isinf(), "all waits are 0, so no finite rate is the best"


@dataclass(frozen=True)
class Normal(Family):
    r"""Bell curve by mean and variance, with information diag(1 / v, 1 / (2 v^2))."""

    parameters, ranges = ("mean", "variance"), ("real", "positive")

    def log_prob(self, x: Tensor, theta: Tensor) -> Tensor:
        loc, variance = columns(theta)
        return -((x - loc).square() / variance + (2 * math.pi * variance).log()) / 2

    def log_survival(self, x: Tensor, theta: Tensor) -> Tensor:
        loc, variance = columns(theta)
        return _log_ndtr((loc - x) * variance.rsqrt())

    def log_cdf(self, x: Tensor, theta: Tensor) -> Tensor:
        loc, variance = columns(theta)
        return _log_ndtr((x - loc) * variance.rsqrt())

    def start(self, x: Tensor, weight: Tensor) -> Tensor:
        loc = mean(x, weight)
        return torch.stack([loc, mean((x - loc[..., None]).square(), weight)], -1)

    def information(self, theta: Tensor) -> Tensor:
        variance = theta[..., 1]
        return torch.stack([1 / variance, 1 / (2 * variance.square())], -1).diag_embed()

    def edge(self, theta: Tensor) -> tuple[Tensor, str]:
        small = theta[..., 1] <= torch.finfo(theta.dtype).eps ** 2 * theta[..., 0].square()
        return small, "all rows are alike, so the likelihood grows without end as variance goes to 0"


@dataclass(frozen=True)
class Gamma(Family):
    r"""Positive numbers, :math:`p(x) = x^{k-1} e^{-x/s} / (\Gamma(k) s^k)`, with k, s = shape, scale.

    Source: Minka (2002), Estimating a Gamma distribution, equation 12, for the start.
    """

    parameters, ranges = ("shape", "scale"), ("positive", "positive")
    support, values = constraints.positive, "numbers > 0"
    exact = False

    def log_prob(self, x: Tensor, theta: Tensor) -> Tensor:
        shape, scale = columns(theta)
        return (shape - 1) * x.log() - x / scale - shape.lgamma() - shape * scale.log()

    def log_survival(self, x: Tensor, theta: Tensor) -> Tensor:
        shape, scale = columns(theta)
        return log_gamma_survival(shape, x / scale)

    def log_cdf(self, x: Tensor, theta: Tensor) -> Tensor:
        shape, scale = columns(theta)
        return log_gamma_cdf(shape, x / scale)

    def start(self, x: Tensor, weight: Tensor) -> Tensor:
        loc = mean(x, weight)
        gap = (loc.log() - mean(x.log(), weight)).clamp(min=torch.finfo(x.dtype).eps)  # > 0 by Jensen
        shape = (3 - gap + ((gap - 3).square() + 24 * gap).sqrt()) / (12 * gap)
        return torch.stack([shape, loc / shape], -1)

    def information(self, theta: Tensor) -> Tensor:
        shape, scale = theta.unbind(-1)
        cross = 1 / scale
        rows = [torch.polygamma(1, shape), cross, cross, shape * cross.square()]
        return torch.stack(rows, -1).unflatten(-1, (2, 2))

    def edge(self, theta: Tensor) -> tuple[Tensor, str]:
        grown = theta[..., 0] > 0.1 / torch.finfo(theta.dtype).eps
        return grown, "all rows are alike, so the likelihood grows without end with shape"


@dataclass(frozen=True)
class Laplace(Family):
    r"""Two exponentials back to back, :math:`p(x) = e^{-|x - m| / b} / (2 b)`, with information diag(1, 1) / b^2.

    Its score jumps at m = x, so minus its second derivative in m is 0 and says nothing.
    """

    parameters, ranges = ("loc", "scale"), ("real", "positive")
    smooth = False

    def log_prob(self, x: Tensor, theta: Tensor) -> Tensor:
        loc, scale = columns(theta)
        return -(x - loc).abs() / scale - (2 * scale).log()

    def start(self, x: Tensor, weight: Tensor) -> Tensor:
        loc = median(x, weight)
        return torch.stack([loc, mean((x - loc[..., None]).abs(), weight)], -1)

    def information(self, theta: Tensor) -> Tensor:
        return theta[..., 1:].square().reciprocal().expand(theta.shape).diag_embed()

    def edge(self, theta: Tensor) -> tuple[Tensor, str]:
        return theta[..., 1] <= 0, "all rows are alike, so the likelihood grows without end as scale goes to 0"


@dataclass(frozen=True)
class StudentT(Family):
    r"""Heavy tails of known degrees of freedom nu; `StudentT(1)` is Cauchy's law.

    .. math:: I(\mu, \sigma) = \mathrm{diag}(\nu + 1, 2 \nu) / ((\nu + 3) \sigma^2)

    Source: Lange, Little and Taylor (1989), J. Am. Stat. Assoc. 84, 881-896, appendix B.
    """

    df: float = 4.0

    parameters, ranges = ("loc", "scale"), ("real", "positive")
    exact = False

    def log_prob(self, x: Tensor, theta: Tensor) -> Tensor:
        loc, scale = columns(theta)
        constant = math.lgamma((self.df + 1) / 2) - math.lgamma(self.df / 2) - math.log(self.df * math.pi) / 2
        return constant - scale.log() - (self.df + 1) / 2 * torch.log1p(((x - loc) / scale).square() / self.df)

    def start(self, x: Tensor, weight: Tensor) -> Tensor:
        loc = median(x, weight)
        spread = median((x - loc[..., None]).abs(), weight)
        return torch.stack([loc, torch.where(spread > 0, spread, mean((x - loc[..., None]).abs(), weight))], -1)

    def information(self, theta: Tensor) -> Tensor:
        both = theta.new_tensor([self.df + 1, 2 * self.df]) / (self.df + 3)
        return (both / theta[..., 1:].square()).diag_embed()

    def edge(self, theta: Tensor) -> tuple[Tensor, str]:
        return theta[..., 1] <= 0, "so many rows are alike that the likelihood grows without end as scale goes to 0"


@dataclass(frozen=True)
class Uniform(Family):
    r"""Evenly between 0 and an unknown end, :math:`p(x) = 1 / \theta` for x <= theta.

    The support moves with theta: the score has no mean of zero, and the maximum's error falls as 1 / n.
    """

    parameters, ranges = ("end",), ("positive",)
    support, values = constraints.nonnegative, "numbers >= 0"
    smooth = False

    def log_prob(self, x: Tensor, theta: Tensor) -> Tensor:
        (end,) = columns(theta)
        return torch.where(x <= end, -end.log(), -math.inf)

    def start(self, x: Tensor, weight: Tensor) -> Tensor:
        return torch.where(weight > 0, x, 0.0).amax(-1, keepdim=True)

    def information(self, theta: Tensor) -> Tensor:
        raise Irregular("Uniform() has no Fisher information: its support ends at the parameter; use end_interval")

    def edge(self, theta: Tensor) -> tuple[Tensor, str]:
        return torch.ones_like(theta[..., 0], dtype=torch.bool), "its support ends at the parameter; use end_interval"


def end_interval(largest: Tensor, rows: Tensor | int, level: float = 0.95) -> Tensor:
    r"""Return an exact interval of a uniform law's end, (..., 2), by :math:`P(\max x \le c\,\theta) = c^n`."""
    widest = (1 - level) ** (-1 / torch.as_tensor(rows, dtype=largest.dtype, device=largest.device))
    return torch.stack([largest, largest * widest], -1)


def _log_ndtr(z: Tensor) -> Tensor:
    """Log of the normal distribution function, (...), from functions that torch can map over data sets."""
    scaled = z / math.sqrt(2)
    low, high = scaled.clamp(max=0), scaled.clamp(min=0)
    left = torch.special.erfcx(-low).log() - low.square() - math.log(2)
    return torch.where(z < 0, left, torch.log1p(-torch.special.erfc(high) / 2))
