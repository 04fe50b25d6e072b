"""The autoencoder that can be solved: a linear decoder with Gaussian noise, which is probabilistic PCA."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LinearGaussian:
    r"""The law x ~ N(W z + b, v I) with z ~ N(0, I), whose likelihood, posterior and maximum are closed forms.

    weight: W, (D, K). bias: b, (D,). variance: v, ().

    Source: Tipping and Bishop (1999), equations 4 to 9; Bishop (2006), section 12.2.
    """

    weight: Tensor
    bias: Tensor
    variance: Tensor

    @classmethod
    def maximum(cls, x: Tensor, latents: int) -> "LinearGaussian":
        """Return the maximum of the likelihood of rows x, (N, D); its weight has orthogonal columns.

        Raises: ValueError unless there are fewer latents than columns, and at least two rows.
        """
        if x.ndim != 2 or len(x) < 2 or not 1 <= latents < x.shape[1]:
            raise ValueError(f"{latents} latents of rows {tuple(x.shape)}: take at least one, fewer than columns")
        values, vectors = torch.linalg.eigh(x.mT.cov(correction=0))  # increasing
        variance = values[:-latents].clamp(min=0).mean()
        top, axes = values[-latents:].flip(0), vectors[:, -latents:].flip(1)
        return cls(axes * (top - variance).clamp(min=0).sqrt(), x.mean(0), variance)

    def log_likelihood(self, x: Tensor) -> Tensor:
        """Return log p(x) of each row of x, (N, D), as (N,)."""
        centred, m = x - self.bias, self._inner()
        root = torch.linalg.cholesky(m)
        white = torch.linalg.solve_triangular(root, (centred @ self.weight).mT, upper=False)  # (K, N)
        distance = (centred.square().sum(-1) - white.square().sum(0)) / self.variance
        log_det = 2 * root.diagonal().log().sum() + (x.shape[-1] - len(m)) * self.variance.log()
        return -0.5 * (distance + log_det + x.shape[-1] * math.log(2 * math.pi))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean of p(z | x), (N, K), and its covariance, (K, K), the same for every row."""
        m = self._inner()
        mean = torch.linalg.solve(m, ((x - self.bias) @ self.weight).mT).mT
        return mean, self.variance * torch.linalg.inv(m)

    def elbo(self, x: Tensor, loc: Tensor, covariance: Tensor) -> Tensor:
        """Return the bound of each row under q(z) = N(loc, covariance), (N,).

        loc: (N, K). covariance: (K, K) or (N, K, K).
        """
        residual = x - self.bias - loc @ self.weight.mT  # (N, D)
        spread = (self.weight.mT @ self.weight * covariance).sum((-2, -1))
        size = x.shape[-1] * (2 * math.pi * self.variance).log()
        told = -0.5 * (size + (residual.square().sum(-1) + spread) / self.variance)
        trace, log_det = covariance.diagonal(dim1=-2, dim2=-1).sum(-1), torch.linalg.slogdet(covariance)[1]
        return told - 0.5 * (trace + loc.square().sum(-1) - loc.shape[-1] - log_det)

    def _inner(self) -> Tensor:
        """M = W' W + v I, (K, K)."""
        eye = torch.eye(self.weight.shape[1], dtype=self.weight.dtype, device=self.weight.device)
        return self.weight.mT @ self.weight + self.variance * eye
