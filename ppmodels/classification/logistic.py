"""Bayesian logistic regression: the log odds of class 1 are a weighted sum of features."""

import math
from dataclasses import dataclass
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppmodels.base import Data, dims


@dataclass(frozen=True)
class LogisticRegression:
    r"""Bayesian logistic regression of two classes.

    .. math:: w \sim N(0, s^2 I),\; y_n \sim Bernoulli(\sigma(\tilde{x}_n^\top w))

    with s = spread, and x~ the features after a constant 1, or without it (`intercept`).

    Latents:  coef (Q,), per unit of its feature; the intercept comes first, Q = P + 1.
    Given:    x (N, P).
    Observed: y (N,), 0 or 1.
    Source:   Murphy (2012), Machine Learning, section 8.4; Bishop (2006), section 4.5.
    """

    features: int = 2
    intercept: bool = True
    spread: float = 2.0
    observed: ClassVar[tuple[str, ...]] = ("y",)

    def __post_init__(self) -> None:
        if self.features < 0 or self.features + self.intercept < 1:
            raise ValueError(f"features must be at least {1 - self.intercept}; it is {self.features}")
        if not 0 < self.spread < math.inf:
            raise ValueError(f"spread must be positive and finite; it is {self.spread}")

    def inputs(self, rows: int) -> dict[str, Tensor]:
        return {"x": torch.randn(rows, self.features)}

    def check(self, data: Data) -> None:
        x, y = data.given["x"], data.observed["y"]
        bad = (~x.isfinite()).nonzero()
        if len(bad):
            row, column = bad[0].tolist()
            raise ValueError(f"x is {x[row, column].item()} in row {row}, column {column}; leave the row out")
        wrong = (~((y == 0) | (y == 1))).nonzero()
        if len(wrong):
            raise ValueError(f"y is {y[wrong[0, 0]].item()} in row {int(wrong[0, 0])}; it must be 0 or 1")

    def model(self, data: Data) -> None:
        design = self.design(data)  # (N, Q)
        prior = dist.Normal(design.new_zeros(design.shape[1]), self.spread).to_event(1)
        coef = pyro.sample("coef", prior, infer=dims("coefficient"))
        with data.plate():
            pyro.sample("y", dist.Bernoulli(logits=design @ coef))

    def design(self, data: Data) -> Tensor:
        """Return the features, with the constant in front, (N, Q)."""
        x = data.given["x"]
        if x.ndim != 2 or x.shape[1] != self.features:
            raise ValueError(f"x must be (rows, {self.features}); it is {tuple(x.shape)}")
        return torch.cat([torch.ones_like(x[:, :1]), x], -1) if self.intercept else x
