"""The Poisson readout of a Gaussian path: its expected log likelihood, which is concave, and where it is highest."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ppmodels.population.kalman import Smoothed

STEPS = 50
GAIN = 1e-12  # relative gain to be had at which Newton's method ends


@dataclass(frozen=True)
class CountReadout:
    r"""What spike counts tell of C and d, given q(z): the sum of
    :math:`y_{ti} (c_i^\top \mu_t + d_i) - \Delta \exp(c_i^\top \mu_t + d_i + c_i^\top \Sigma_t c_i / 2)`.

    mean (B, P), cov (B, P, P): of the path, bins of all trials in one row. counts, seen (B, N). bin_size in s.
    """

    mean: Tensor
    cov: Tensor
    counts: Tensor
    seen: Tensor
    bin_size: float

    @classmethod
    def of(cls, path: Smoothed, y: Tensor, bin_size: float) -> "CountReadout":
        """Lay out y (R, T, N), NaN where nothing was seen."""
        missing = y.isnan()
        counts, seen = torch.where(missing, 0.0, y), (~missing).to(y)
        flat = (part.flatten(0, 1) for part in (path.mean, path.cov, counts, seen))
        return cls(*flat, bin_size=bin_size)

    def expected_log_prob(self, loading: Tensor, offset: Tensor) -> Tensor:
        """Return E log p(y | path), ()."""
        each = self._value(torch.cat([loading, offset[:, None]], -1))
        return each.sum() - torch.lgamma(self.counts + 1).sum()

    def maximise(self, loading: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        """Return C and d of the highest expected log likelihood, by Newton's method from these."""
        weights = torch.cat([loading, offset[:, None]], -1)  # (N, P + 1)
        value = trial = self._value(weights)
        for _ in range(STEPS):
            step, left = self._newton(weights)
            share = torch.ones_like(offset)
            for _ in range(STEPS):
                trial = self._value(weights + share[:, None] * step)
                short = ~(trial >= value + 0.1 * share * left - 1e-13 * value.abs())
                if not short.any():
                    break
                share = torch.where(short, share / 2, share)
            weights, value = weights + share[:, None] * step, trial
            if bool((left <= GAIN * (1 + value.abs())).all()):
                break
        return weights[:, :-1], weights[:, -1]

    def _log_rate(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return c' mu + d and half the variance of it, (B, N) each; the bin's length is in the first."""
        loading = weights[:, :-1]
        pairs = (loading[:, :, None] * loading[:, None, :]).flatten(1)
        eta = self.mean @ loading.mT + weights[:, -1] + math.log(self.bin_size)
        return eta, 0.5 * self.cov.flatten(1) @ pairs.mT

    def _value(self, weights: Tensor) -> Tensor:
        eta, bend = self._log_rate(weights)
        return (self.counts * eta - self.seen * (eta + bend).exp()).sum(0)  # (N,)

    def _newton(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Each neuron's step, (N, P + 1), and twice what it would gain, (N,)."""
        eta, bend = self._log_rate(weights)
        rate = self.seen * (eta + bend).exp()  # (B, N)
        swing = torch.einsum("bpq,nq->nbp", self.cov, weights[:, :-1]) + self.mean  # Sigma c + mu, (N, B, P)
        swing = torch.nn.functional.pad(swing, (0, 1), value=1.0)
        plain = torch.nn.functional.pad(self.mean, (0, 1), value=1.0)
        grad = self.counts.mT @ plain - (rate.mT[:, None] @ swing)[:, 0]  # (N, P + 1)
        hessian = swing.mT @ (rate.mT[..., None] * swing)
        spread = (rate.mT @ self.cov.flatten(1)).unflatten(-1, self.cov.shape[-2:])
        hessian = hessian + torch.nn.functional.pad(spread, (0, 1, 0, 1))
        size = hessian.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(1e-12)
        eye = torch.eye(weights.shape[1], dtype=weights.dtype, device=weights.device)
        step = torch.linalg.solve(hessian + 1e-10 * size[:, None, None] * eye, grad[..., None])[..., 0]
        return step, (grad * step).sum(-1)
