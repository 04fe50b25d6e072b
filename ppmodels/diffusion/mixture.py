r"""Gaussian mixtures under noise, in closed form: networks whose every answer is exact.

With data :math:`x_0 \sim \sum_k w_k N(\mu_k, \Sigma_k)`, noisy data :math:`\alpha x_0 + \sigma\epsilon` are a
mixture of :math:`N(\alpha\mu_k, \alpha^2\Sigma_k + \sigma^2 I)`: score, noise and origin are known.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from ppmodels.diffusion._noise import standard_normal

Scale = float | Tensor


class Path(Protocol):
    """Anything that knows signal and noise at a time: a `Schedule`, an SDE, a straight flow."""

    def level(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class NoisedMixture:
    """Mixture of K Gaussians in D dimensions: weights (K,), loc (K, D), covariance (K, D, D).

    Raises: ValueError when the shapes do not fit or the weights do not sum to 1.
    """

    weights: Tensor
    loc: Tensor
    covariance: Tensor

    def __post_init__(self):
        k, d = self.loc.shape if self.loc.ndim == 2 else (-1, -1)
        if self.weights.shape != (k,) or self.covariance.shape != (k, d, d):
            shapes = ", ".join(str(tuple(a.shape)) for a in (self.weights, self.loc, self.covariance))
            raise ValueError(f"weights (K,), loc (K, D) and covariance (K, D, D) are needed; got {shapes}")
        if abs(float(self.weights.sum()) - 1) > 1e-6 or bool((self.weights < 0).any()):
            raise ValueError("weights must not be negative and must sum to 1")

    @classmethod
    def isotropic(cls, loc: Tensor, scale: float, weights: Tensor | None = None) -> "NoisedMixture":
        """Round components of one sd at loc (K, D), equally heavy unless told."""
        count, dim = loc.shape
        weights = torch.full_like(loc[:, 0], 1 / count) if weights is None else weights
        return cls(weights, loc, scale**2 * torch.eye(dim).to(loc).expand(count, dim, dim))

    def sample(self, rows: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Data (rows, D), and the component of each, (rows,)."""
        label = torch.multinomial(self.weights, rows, replacement=True, generator=generator)
        variance, axes = self._axes
        noise = standard_normal(self.loc[label], generator)  # (rows, D)
        turned = torch.einsum("nde,ne->nd", axes[label], variance[label].sqrt() * noise)
        return self.loc[label] + turned, label

    def log_prob(self, x: Tensor, alpha: Scale = 1.0, sigma: Scale = 0.0) -> Tensor:
        """Log density of noisy x (B, D), (B,)."""
        return self._parts(x, alpha, sigma)[0].logsumexp(-1)

    def log_label(self, x: Tensor, alpha: Scale = 1.0, sigma: Scale = 0.0) -> Tensor:
        """Log probability of each component given x, (B, K)."""
        return self._parts(x, alpha, sigma)[0].log_softmax(-1)

    def score(self, x: Tensor, alpha: Scale = 1.0, sigma: Scale = 0.0) -> Tensor:
        """Gradient in x of the log density, (B, D)."""
        joint, whitened = self._parts(x, alpha, sigma)
        return -self._average(joint, whitened)

    def x0(self, x: Tensor, alpha: Scale, sigma: Scale) -> Tensor:
        """E[x_0 | x], (B, D)."""
        joint, whitened = self._parts(x, alpha, sigma)
        scaled = whitened * self._axes[0]  # (B, K, D)
        return joint.softmax(-1) @ self.loc + alpha * self._average(joint, scaled)

    def component(self, k: int) -> "NoisedMixture":
        """One component alone."""
        one = slice(k, k + 1)
        return NoisedMixture(torch.ones_like(self.weights[one]), self.loc[one], self.covariance[one])

    def network(self, path: Path, prediction_type: str = "epsilon") -> Callable[[Tensor, Tensor], Tensor]:
        """The perfect network, (x (B, D), t (B,)) -> (B, D). `velocity` is noise - x0."""
        known = {"epsilon", "x0", "v", "score", "velocity"}
        if prediction_type not in known:
            raise ValueError(f"no prediction_type {prediction_type!r}; there are: {', '.join(sorted(known))}")

        def answer(x: Tensor, t: Tensor) -> Tensor:
            alpha, sigma = path.level(t, x)
            if prediction_type == "score":
                return self.score(x, alpha, sigma)
            if prediction_type == "x0":
                return self.x0(x, alpha, sigma)
            epsilon = -sigma * self.score(x, alpha, sigma)
            if prediction_type == "epsilon":
                return epsilon
            x0 = self.x0(x, alpha, sigma)
            return epsilon - x0 if prediction_type == "velocity" else alpha * epsilon - sigma * x0

        return answer

    def conditional_network(self, path: Path) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """The perfect noise network that knows the component, (x, t, label (B,)); label K means: any."""
        whole = self.network(path)
        alone = [self.component(k).network(path) for k in range(len(self.weights))]

        def answer(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
            each = torch.stack([network(x, t) for network in [*alone, whole]], 1)  # (B, K + 1, D)
            return each[torch.arange(len(x)), label]

        return answer

    @cached_property
    def _axes(self) -> tuple[Tensor, Tensor]:
        """Variances along the principal axes (K, D), and the axes as columns (K, D, D)."""
        return torch.linalg.eigh(self.covariance)

    def _parts(self, x: Tensor, alpha: Scale, sigma: Scale) -> tuple[Tensor, Tensor]:
        """Two parts of every component's score.

        Returns: log p(x, k), (B, K); inv(alpha^2 Sigma_k + sigma^2 I) (x - alpha mu_k), on axes, (B, K, D).
        """
        if x.ndim != 2 or x.shape[1] != self.loc.shape[1]:
            raise ValueError(f"x must be (B, {self.loc.shape[1]}); got {tuple(x.shape)}")
        alpha, sigma = (a[..., None] if isinstance(a, Tensor) and a.ndim else a for a in (alpha, sigma))
        data_variance, axes = self._axes
        gap = x[:, None, :] - alpha * self.loc  # (B, K, D)
        along = torch.einsum("bkd,kde->bke", gap, axes)  # (B, K, D)
        variance = alpha**2 * data_variance + sigma**2  # (K, D) or (B, K, D)
        whitened = along / variance
        density = -0.5 * (along * whitened + variance.log() + math.log(2 * math.pi)).sum(-1)  # (B, K)
        return self.weights.log() + density, whitened

    def _average(self, joint: Tensor, along: Tensor) -> Tensor:
        """Mean over the components of vectors given on their axes, (B, D)."""
        return torch.einsum("bk,kde,bke->bd", joint.softmax(-1), self._axes[1], along)
