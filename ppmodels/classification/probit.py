"""The perceptron with noise: a threshold unit whose input is disturbed, so that its weights have a posterior."""

import math
from dataclasses import dataclass
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppmodels.base import Data, dims


@dataclass(frozen=True)
class ProbitPerceptron:
    r"""Noisy threshold unit: class 1 where a weighted sum and standard Gaussian noise reach 0.

    .. math:: w \sim N(0, s^2 I),\; y_n = [\tilde{x}_n^\top w + \epsilon_n \ge 0],\; \epsilon_n \sim N(0, 1),
        \quad P(y_n = 1) = \Phi(\tilde{x}_n^\top w)

    with s = spread, and x~ the features after a constant 1. Large weights are a perceptron that never errs.

    Latents:  coef (Q,), per unit of its feature; the intercept comes first, Q = P + 1.
    Given:    x (N, P).
    Observed: y (N,), 0 or 1.
    Source:   Rosenblatt (1958), Psychological Review 65; Albert and Chib (1993), JASA 88.
    """

    features: int = 2
    spread: float = 2.0
    observed: ClassVar[tuple[str, ...]] = ("y",)

    def __post_init__(self) -> None:
        if self.features < 0:
            raise ValueError(f"features must be at least 0; it is {self.features}")
        if not 0 < self.spread < math.inf:
            raise ValueError(f"spread must be positive and finite; it is {self.spread}")

    def inputs(self, rows: int) -> dict[str, Tensor]:
        return {"x": torch.randn(rows, self.features)}

    def model(self, data: Data) -> None:
        x = data.given["x"]
        if x.ndim != 2 or x.shape[1] != self.features:
            raise ValueError(f"x must be (rows, {self.features}); it is {tuple(x.shape)}")
        prior = dist.Normal(x.new_zeros(self.features + 1), self.spread).to_event(1)
        coef = pyro.sample("coef", prior, infer=dims("coefficient"))
        linear = coef[0] + x @ coef[1:]  # (N,)
        # Log odds from both tails: 1 - Phi would round to 0 where Phi is nearly 1.
        logits = torch.special.log_ndtr(linear) - torch.special.log_ndtr(-linear)
        with data.plate():
            pyro.sample("y", dist.Bernoulli(logits=logits))
