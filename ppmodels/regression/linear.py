"""Linear regression: an outcome is a weighted sum of features and noise of known size."""

import math
from dataclasses import dataclass
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import Distribution
from torch import Tensor

from ppmodels.base import Data, dims


@dataclass(frozen=True)
class LinearRegression:
    r"""Bayesian linear regression with known noise: its posterior and its evidence are exact.

    .. math:: \beta \sim N(0, s^2 I),\; y_n \sim N(\tilde{x}_n^\top \beta, \sigma^2)

    with s, sigma = spread, noise, and x~ the features after a constant 1, or without it (`intercept`).

    Latents:  coef (Q,), unit of y over that of its feature; the intercept comes first, Q = P + 1.
    Given:    x (N, P).
    Observed: y (N,).
    Source:   Bishop (2006), Pattern Recognition and Machine Learning, equations 3.53, 3.54 and 3.86.
    """

    features: int = 1
    intercept: bool = True
    noise: float = 1.0
    spread: float = 10.0
    observed: ClassVar[tuple[str, ...]] = ("y",)

    def __post_init__(self) -> None:
        if self.features < 0 or self.features + self.intercept < 1:
            raise ValueError(f"features must be at least {1 - self.intercept}; it is {self.features}")
        for name in ("noise", "spread"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite; it is {getattr(self, name)}")

    def inputs(self, rows: int) -> dict[str, Tensor]:
        return {"x": torch.randn(rows, self.features)}

    def model(self, data: Data) -> None:
        design = self._design(data)  # (N, Q)
        prior = dist.Normal(design.new_zeros(design.shape[1]), self.spread).to_event(1)
        coef = pyro.sample("coef", prior, infer=dims("coefficient"))
        with data.plate():
            pyro.sample("y", dist.Normal(design @ coef, self.noise))

    def posterior(self, data: Data) -> dict[str, Distribution]:
        mean, root = self._solve(data)
        eye = torch.eye(len(mean), dtype=mean.dtype, device=mean.device)
        spread = torch.linalg.solve_triangular(root, eye, upper=False)  # (Q, Q), its own square the covariance
        return {"coef": dist.MultivariateNormal(mean, covariance_matrix=spread.mT @ spread)}

    def log_evidence(self, data: Data) -> Tensor:
        """Return log p(y | x), (): the likelihood with coef integrated out."""
        mean, root = self._solve(data)
        residual = data.observed["y"] - self._design(data) @ mean  # (N,)
        misfit = residual.square().sum() / self.noise**2 + mean.square().sum() / self.spread**2
        size = len(residual) * math.log(2 * math.pi * self.noise**2) + len(mean) * math.log(self.spread**2)
        return -(misfit + size) / 2 - root.diagonal().log().sum()

    def _solve(self, data: Data) -> tuple[Tensor, Tensor]:
        """The posterior's mean (Q,), and the lower Cholesky factor of its precision (Q, Q)."""
        design, y = self._design(data), data.observed["y"]
        prior = torch.eye(design.shape[1], dtype=design.dtype, device=design.device) / self.spread**2
        root = torch.linalg.cholesky(prior + design.mT @ design / self.noise**2)
        return torch.cholesky_solve((design.mT @ y / self.noise**2)[:, None], root)[:, 0], root

    def _design(self, data: Data) -> Tensor:
        """The features, with the constant in front, (N, Q)."""
        x = data.given["x"]
        if x.ndim != 2 or x.shape[1] != self.features:
            raise ValueError(f"x must be (rows, {self.features}); it is {tuple(x.shape)}")
        return torch.cat([torch.ones_like(x[:, :1]), x], -1) if self.intercept else x
