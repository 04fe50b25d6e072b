"""A fitted Gaussian mixture as a density: what it says of some columns, and of some given the others."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppmodels.base import Theta
from ppmodels.clustering import _covariance
from ppmodels.clustering._gaussian import log_density
from ppmodels.clustering.gmm import GaussianMixture


@dataclass(frozen=True)
class MixtureDensity:
    """Weights (K,), means (K, D) and covariances (K, D, D)."""

    weights: Tensor
    loc: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, model: GaussianMixture, theta: Theta) -> "MixtureDensity":
        """Return the density at parameters by site, as `{name: value[0, 0] for name, value in fit.draws.items()}`."""
        factor = _covariance.whitening(theta, model.covariance, model.dim)
        covariance = _covariance.covariance(factor, model.covariance in ("full", "tied"))
        return cls(theta["weights"], theta["loc"], covariance.expand(model.components, -1, -1))

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log density of rows, (N,)."""
        return self._log_joint(x).logsumexp(-1)

    def memberships(self, x: Tensor) -> Tensor:
        """Return the probability of each component, (N, K)."""
        return self._log_joint(x).softmax(-1)

    def sample(self, rows: int) -> Tensor:
        """Return rows, (N, D)."""
        z = torch.multinomial(self.weights, rows, replacement=True)
        noise = torch.randn(rows, self.loc.shape[1], dtype=self.loc.dtype, device=self.loc.device)
        return self.loc[z] + (torch.linalg.cholesky(self.covariance)[z] @ noise[..., None])[..., 0]

    @property
    def mean(self) -> Tensor:
        """Mean of a row, (D,)."""
        return self.weights @ self.loc

    @property
    def variance(self) -> Tensor:
        """Covariance of a row, (D, D): within components and between them."""
        gap = self.loc - self.mean
        return (self.weights[:, None, None] * (self.covariance + gap[:, :, None] * gap[:, None])).sum(0)

    def marginal(self, columns: Any) -> "MixtureDensity":
        """Return the density of some columns, the others summed out."""
        index = torch.as_tensor(columns)
        return MixtureDensity(self.weights, self.loc[:, index], self.covariance[:, index[:, None], index])

    def conditional(self, columns: Any, values: Tensor) -> "MixtureDensity":
        r"""Return the density of the other columns where these have these values, (V,): a mixture again.

        .. math:: w_k' \propto w_k N(x_v; \mu_v, \Sigma_{vv}),\; \mu_k' = \mu_u + A (x_v - \mu_v),
            \; \Sigma_k' = \Sigma_{uu} - A \Sigma_{vu}, \quad A = \Sigma_{uv} \Sigma_{vv}^{-1}

        Its mean over x_v is Gaussian mixture regression.
        Source: Ghahramani and Jordan (1994), NIPS 6; Bishop (2006), equations 2.81 and 2.82.
        """
        known = torch.as_tensor(columns)
        other = torch.tensor([i for i in range(self.loc.shape[1]) if i not in known.tolist()])
        known_part, values = self.marginal(known), torch.as_tensor(values).to(self.loc)
        across = self.covariance[:, other[:, None], known]  # (K, U, V)
        slope = torch.linalg.solve(known_part.covariance, across.mT).mT
        loc = self.loc[:, other] + (slope @ (values - known_part.loc)[..., None])[..., 0]
        spread = self.covariance[:, other[:, None], other] - slope @ across.mT
        return MixtureDensity(known_part.memberships(values[None])[0], loc, spread)

    def _log_joint(self, x: Tensor) -> Tensor:
        root = torch.linalg.cholesky(self.covariance)
        factor = torch.linalg.solve_triangular(root, torch.eye(root.shape[-1]).to(root), upper=False)
        return self.weights.log() + log_density(x.to(self.loc), self.loc, factor)  # (N, K)
