"""One number a row, from a family with a conjugate prior: the posterior and the evidence are formulas."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppmodels.base import Data, Theta
from ppmodels.base.moments import Moments

Law = Literal["poisson", "exponential", "bernoulli", "normal"]


@dataclass(frozen=True)
class ConjugateFamily:
    r"""Rows from one law of a family, under its conjugate prior.

    .. math:: \lambda \sim Gamma(a, b),\; y_n \sim Poisson(\lambda) \text{ or } Exponential(\lambda); \quad
        \lambda \sim Beta(a, b),\; y_n \sim Bernoulli(\lambda); \quad
        \tau \sim Gamma(a, b),\; \mu \sim N(m, (\kappa \tau)^{-1}),\; y_n \sim N(\mu, \tau^{-1})

    with a, b, m, kappa = shape, rate, center, strength.

    Latents:  parameter (), lambda; of the normal law precision () and loc () instead.
    Observed: y (N,).
    Source:   Gelman et al. (2013), Bayesian Data Analysis, sections 2.4 to 3.3; Murphy (2007), sections 3 and 4.
    """

    law: Law = "poisson"
    shape: float = 2.0
    rate: float = 1.0
    center: float = 0.0
    strength: float = 1.0
    observed: ClassVar[tuple[str, ...]] = ("y",)

    def __post_init__(self) -> None:
        if self.law not in ("poisson", "exponential", "bernoulli", "normal"):
            raise ValueError(f"law must be poisson, exponential, bernoulli or normal; it is {self.law!r}")
        if not all(0 < value < math.inf for value in (self.shape, self.rate, self.strength)):
            raise ValueError("shape, rate and strength must be positive and finite")

    def inputs(self, rows: int) -> dict[str, Tensor]:
        return {}

    def model(self, data: Data) -> None:
        theta: Theta = {}
        for name, law in self.given(Moments(*torch.zeros(3))).items():
            theta[name] = pyro.sample(name, law(theta) if name == "loc" else law)
        if self.law == "normal":
            y: Any = dist.Normal(theta["loc"], theta["precision"].rsqrt())
        else:
            laws = {"poisson": dist.Poisson, "exponential": dist.Exponential, "bernoulli": dist.Bernoulli}
            y = laws[self.law](theta["parameter"])
        with data.plate():
            pyro.sample("y", y)

    def posterior(self, data: Data) -> dict[str, Any]:
        return self.given(self.sums(data))

    def log_evidence(self, data: Data) -> Tensor:
        """Return log p(y), ()."""
        y, sums = data.observed["y"].double(), self.sums(data)
        a, b, _, kappa = self._updated(sums)
        rows, prior = sums.count, torch.tensor([self.shape, self.rate], dtype=torch.float64)
        if self.law == "bernoulli":
            return (a.lgamma() + b.lgamma() - (a + b).lgamma()) - (prior.lgamma().sum() - prior.sum().lgamma())
        gain = a.lgamma() - a * b.log() - prior[0].lgamma() + prior[0] * prior[1].log()
        if self.law == "normal":
            return gain + (self.strength / kappa).log() / 2 - rows / 2 * math.log(2 * math.pi)
        return gain - ((y + 1).lgamma().sum() if self.law == "poisson" else 0.0)

    def sums(self, data: Data) -> Moments:
        y = data.observed["y"].double()
        return Moments(y.new_tensor(float(len(y))), y.mean(), (y - y.mean()).square().sum())

    def _updated(self, sums: Moments) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return shape, rate, center and strength given rows."""
        rows, mean, scatter = sums.count, sums.mean, sums.scatter
        total, kappa = rows * mean, self.strength + rows
        if self.law == "normal":
            pull = rows * self.strength / kappa * (mean - self.center) ** 2
            center = (self.strength * self.center + total) / kappa
            return self.shape + rows / 2, self.rate + (scatter + pull) / 2, center, kappa
        more = {"poisson": (total, rows), "exponential": (rows, total), "bernoulli": (total, rows - total)}[self.law]
        return self.shape + more[0], self.rate + more[1], mean, kappa

    def given(self, sums: Moments) -> dict[str, Any]:
        """Return the law of each latent given rows, by site; the prior, where there are none."""
        a, b, center, kappa = (value.to(torch.get_default_dtype()) for value in self._updated(sums))
        if self.law == "normal":
            loc = lambda at: dist.Normal(center, (kappa * at["precision"]).rsqrt())  # noqa: E731
            return {"precision": dist.Gamma(a, b), "loc": loc}
        return {"parameter": dist.Beta(a, b) if self.law == "bernoulli" else dist.Gamma(a, b)}
