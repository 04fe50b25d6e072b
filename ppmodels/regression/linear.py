"""Linear regression: an outcome is a weighted sum of features, and noise of known or unknown size."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import Distribution
from torch import Tensor

from ppmodels.base import Data, Theta, dims
from ppmodels.regression._squares import Squares


@dataclass(frozen=True)
class LinearRegression:
    r"""Bayesian linear regression, its posterior and its evidence exact.

    .. math:: \beta \sim N(0, s^2 I),\; y_n \sim N(\tilde{x}_n^\top \beta, \sigma^2)

    with s, sigma = spread, noise, and x~ the features after a constant 1, or without it (`intercept`). With `noise`
    None, :math:`\tau \sim Gamma(a, b),\; \sigma^2 = 1 / \tau,\; \beta \sim N(0, s^2 \sigma^2 I)`: s is then in units
    of the noise, tau is the site precision, and a, b = shape, rate.

    Latents:  coef (Q,), unit of y over that of its feature; the intercept comes first, Q = P + 1.
              With unknown noise precision (), one over the square of y's unit.
    Given:    x (N, P).
    Observed: y (N,).
    Source:   Bishop (2006), Pattern Recognition and Machine Learning, equations 3.53, 3.54 and 3.86; for
              unknown noise exercises 3.12 and 3.23.
    """

    features: int = 1
    intercept: bool = True
    noise: float | None = 1.0  # sd of y around its mean; None when it is to be inferred
    spread: float = 10.0  # sd of a coefficient before any data; in units of the noise where that is unknown
    shape: float = 1.0  # of the precision's Gamma prior, where the noise is unknown
    rate: float = 1.0
    observed: ClassVar[tuple[str, ...]] = ("y",)

    def __post_init__(self) -> None:
        if self.features < 0 or self.features + self.intercept < 1:
            raise ValueError(f"features must be at least {1 - self.intercept}; it is {self.features}")
        for name in ("noise", "spread", "shape", "rate"):
            if (name != "noise" or self.noise is not None) and not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite; it is {getattr(self, name)}")

    def inputs(self, rows: int) -> dict[str, Tensor]:
        return {"x": torch.randn(rows, self.features)}

    def model(self, data: Data) -> None:
        design, noise, spread = self._design(data), self.noise, self.spread  # (N, Q)
        if noise is None:
            noise = pyro.sample("precision", dist.Gamma(design.new_tensor(self.shape), self.rate)).rsqrt()
            spread = spread * noise
        law = dist.Normal(design.new_zeros(design.shape[1]), spread).to_event(1)
        coef = pyro.sample("coef", law, infer=dims("coefficient"))
        with data.plate():
            pyro.sample("y", dist.Normal(design @ coef, noise))

    def posterior(self, data: Data) -> dict[str, Distribution | Callable[[Theta], Distribution]]:
        return self.given(self.sums(data))

    def sums(self, data: Data) -> Squares:
        return Squares.of(torch.cat([self._design(data), data.observed["y"][:, None]], 1))

    def given(self, sums: Squares) -> dict[str, Distribution | Callable[[Theta], Distribution]]:
        mean, root, shape, rate = self._solve(sums)
        tril = torch.linalg.cholesky(torch.cholesky_inverse(root, upper=True))  # (Q, Q), of covariance / sigma^2

        def coef(draws: Theta) -> Distribution:
            return dist.MultivariateNormal(mean, scale_tril=tril * draws["precision"].rsqrt()[..., None, None])

        if self.noise is None:
            return {"precision": dist.Gamma(shape, rate), "coef": coef}
        return {"coef": coef({"precision": mean.new_tensor(self.noise) ** -2})}

    def log_evidence(self, data: Data) -> Tensor:
        """Return log p(y | x), (): the likelihood with coef, and the noise where it is unknown, integrated out."""
        mean, root, shape, rate = self._solve(sums := self.sums(data))
        spread = len(mean) * math.log(self.spread / (self.noise or 1.0)) + root.diagonal().abs().log().sum()
        gain = shape.lgamma() - math.lgamma(self.shape) + self.shape * math.log(self.rate) - shape * rate.log()
        if self.noise is not None:
            gain = (self.rate - rate) / self.noise**2 - sums.rows * math.log(self.noise)
        return gain - spread - sums.rows / 2 * math.log(2 * math.pi)

    def _solve(self, sums: Squares) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean (Q,), upper root of the precision times sigma^2 (Q, Q); shape and rate of tau's posterior, ()."""
        mean, root, misfit = sums.regress((self.noise or 1.0) / self.spread)
        return mean, root, mean.new_tensor(self.shape + sums.rows / 2), self.rate + misfit / 2

    def _design(self, data: Data) -> Tensor:
        """The features, with the constant in front, (N, Q)."""
        x = data.given["x"]
        if x.ndim != 2 or x.shape[1] != self.features:
            raise ValueError(f"x must be (rows, {self.features}); it is {tuple(x.shape)}")
        return torch.cat([torch.ones_like(x[:, :1]), x], -1) if self.intercept else x
