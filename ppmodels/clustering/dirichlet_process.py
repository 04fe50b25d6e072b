"""Dirichlet process mixture: as many clusters as the rows ask for, by breaking a stick."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppmodels.base import Data, Theta, dims
from ppmodels.clustering import _covariance, _labels
from ppmodels.clustering._checks import describe
from ppmodels.clustering._gaussian import ClusterNormal
from ppmodels.clustering.gibbs import sweep
from ppmodels.clustering.sticks import stick_breaking
from ppmodels.clustering.variational import ascend


@dataclass(frozen=True)
class DirichletProcessMixture:
    r"""Mixture of Gaussians whose weights are broken off a stick, cut after K pieces; or, to compare, finite.

    .. math:: v_k \sim Beta(1, a),\; \pi_k = v_k \prod_{j<k} (1 - v_j),\; \Sigma_k \sim IW(\nu + D - 1, \nu h^2 S),\;
        \mu_k \sim N(m, \Sigma_k / \kappa),\; z_n \sim \pi,\; x_n \mid z_n = k \sim N(\mu_k, \Sigma_k)

    with a, kappa, m, nu, h = concentration, shrinkage, center, strength, width and S = diag(scale)^2. The prior is
    conjugate: `svi` with guide="blocks" and `mcmc` with kernel="gibbs" take steps in closed form. With finite weights
    pi ~ Dir(a) takes the sticks' place.

    Latents:  sticks (J,), J = K - 1; loc (K, D), unit of x; precision (K, D); off_diagonal (K, P), P = D (D - 1) / 2;
              z (N,) summed out, covariance (K, D, D) computed. Finite: weights (K,) for sticks.
    Observed: x (N, D).
    Source:   Sethuraman (1994), Statistica Sinica 4; Blei and Jordan (2006), Bayesian Analysis 1, section 3.
    """

    components: int = 5
    dim: int = 2
    weights: Literal["sticks", "finite"] = "sticks"
    concentration: float = 1.0
    shrinkage: float = 0.1
    center: tuple[float, ...] = (0.0,)  # one a column, or one for all
    scale: tuple[float, ...] = (1.0,)
    strength: float = 4.0
    width: float = 0.5
    observed: ClassVar[tuple[str, ...]] = ("x",)

    def __post_init__(self) -> None:
        least = 2 if self.weights == "sticks" else 1
        if self.components < least or self.dim < 1:
            raise ValueError(f"components must be at least {least} and dim 1; got {self.components} and {self.dim}")
        numbers = (self.concentration, self.shrinkage, self.strength, self.width, *self.scale)
        if not all(0 < value < math.inf for value in numbers):
            raise ValueError("concentration, shrinkage, strength, width and scale must be positive and finite")

    @classmethod
    def for_data(cls, x: Any, **fields: Any) -> "DirichletProcessMixture":
        """Return the mixture whose center and scale are the means and sds of the columns of x, (N, D)."""
        return cls(**{**describe(x, 1), **fields})

    def inputs(self, rows: int) -> dict[str, Tensor]:
        return {}

    def model(self, data: Data) -> None:
        center, scale = (torch.tensor(field).expand(self.dim) for field in (self.center, self.scale))
        prob = self._weights(torch.full((self.components,), self.concentration))
        gamma = _covariance.gamma_prior("full", scale, self.strength, self.width)
        factor = _covariance.sample("full", torch.Size((self.components, self.dim)), *gamma)
        eye = torch.eye(self.dim).to(factor).expand_as(factor)
        root = torch.linalg.solve_triangular(factor, eye, upper=False) / math.sqrt(self.shrinkage)
        law = dist.MultivariateNormal(center.expand(self.components, -1), scale_tril=root).to_event(1)
        loc = pyro.sample("loc", law, infer=dims("components", "feature"))
        with data.plate():
            z = pyro.sample("z", dist.Categorical(prob), infer={"enumerate": "parallel"})
            pyro.sample("x", ClusterNormal(z, loc, factor, center), infer=dims("feature"))

    def sweep(self, data: Data, latents: Theta | None) -> Theta:
        return sweep(self, data, latents)

    def ascend(self, data: Data) -> Iterator[tuple[float, Callable[[int], Theta]]]:
        return ((found.bound, found.sample) for found in ascend(self, data))

    def relabel(self, draws: Theta) -> Theta:
        """Return finite mixtures' draws in the order of loc's first coordinate; sticks have an order of their own."""
        return draws if self.weights == "sticks" else _labels.relabel(draws)

    def _weights(self, concentration: Tensor) -> Tensor:
        """Sample pi, (K,)."""
        if self.weights == "finite":
            return pyro.sample("weights", dist.Dirichlet(concentration), infer=dims("components"))
        law = dist.Beta(torch.ones_like(concentration[1:]), concentration[1:]).to_event(1)
        return stick_breaking(pyro.sample("sticks", law, infer=dims("stick")))
