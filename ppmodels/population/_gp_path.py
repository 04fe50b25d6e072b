"""Latents that are independent Gaussian processes in time, read out linearly: the posterior and its likelihood."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppmodels.population._gapped import TrialDistribution
from ppmodels.population._positive import cholesky


@dataclass(frozen=True)
class ProcessReadout:
    """x_p ~ N(0, K_p), y_t ~ N(C x_t + d, diag(noise)): kernel (P, T, T), loading (N, P), offset, variances (N,)."""

    kernel: Tensor
    loading: Tensor
    offset: Tensor
    noise: Tensor


@dataclass(frozen=True)
class ProcessPosterior:
    """Posterior of G groups of K trials, each group seen alike, latent by latent.

    mean (G, P T, K), cov_root (G, P T, P T), of which the square is the covariance; log_det (G,) of it.
    log_likelihood (G, K).
    """

    mean: Tensor
    cov_root: Tensor
    log_det: Tensor
    log_likelihood: Tensor


def kernels(timescale: Tensor, bins: int, bin_size: float, jitter: float) -> Tensor:
    r"""Return the covariances :math:`(1 - \sigma^2) e^{-\Delta t^2 / 2 \tau_p^2} + \sigma^2 \delta`, (P, T, T)."""
    apart = squared_lags(bins, bin_size, timescale)
    smooth = (-0.5 * apart / timescale[:, None, None].square()).exp()
    return (1 - jitter) * smooth + jitter * torch.eye(bins, dtype=apart.dtype, device=apart.device)


def squared_lags(bins: int, bin_size: float, like: Tensor) -> Tensor:
    """Return the squared times between bins, (T, T)."""
    time = torch.arange(bins, dtype=like.dtype, device=like.device) * bin_size
    return (time[:, None] - time).square()


def infer(readout: ProcessReadout, y: Tensor, seen: Tensor | None = None) -> ProcessPosterior:
    """Return the posterior of trials y (G, K, T, N), of which seen (G, T, N), or all, where G = 1.

    In the space of the latents, (P T)^3 in place of (N T)^3: with K = L L' and J = C' R^-1 C of the bins, the
    covariance is L (I + L' J L)^-1 L', which is well conditioned however smooth the kernels are.

    Source: Yu et al. (2009), J. Neurophysiology 102, equations A3 and A4, by Woodbury's identity.
    """
    latents, bins, _ = readout.kernel.shape
    residual = y - readout.offset if seen is None else torch.where(seen[:, None], y - readout.offset, 0.0)
    scaled = readout.loading / readout.noise[:, None]
    pairs = (readout.loading[:, :, None] * scaled[:, None, :]).flatten(1)
    on = torch.ones_like(y[:, 0]) if seen is None else seen.to(y)  # (G, T, N)
    information = (on @ pairs).unflatten(-1, (latents, latents))  # (G, T, P, P)
    roots = cholesky(readout.kernel, "inferring the latents", "a kernel")  # (P, T, T)
    pulled = torch.einsum("gspq,qsb->gpsqb", information, roots).flatten(3)  # J L, (G, P, T, P T)
    inner = (roots.mT @ pulled).flatten(1, 2)  # (G, P T, P T)
    factor = torch.linalg.cholesky(inner + torch.eye(latents * bins, dtype=y.dtype, device=y.device))
    pull = (residual @ scaled).permute(0, 3, 2, 1)  # (G, P, T, K)
    white = torch.linalg.solve_triangular(factor, (roots.mT @ pull).flatten(1, 2), upper=False)  # (G, P T, K)
    prior = torch.block_diag(*roots).mT.expand(factor.shape)
    half = torch.linalg.solve_triangular(factor, prior, upper=False)  # (G, P T, P T)
    misfit = (residual.square() / readout.noise).sum((-2, -1)) - white.square().sum(-2)  # (G, K)
    turned = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)  # (G,)
    sizes = (on * (2 * math.pi * readout.noise).log()).sum((-2, -1)) + turned
    log_det = 2 * roots.diagonal(dim1=-2, dim2=-1).log().sum() - turned
    return ProcessPosterior(half.mT @ white, half.mT, log_det, -0.5 * (misfit + sizes[:, None]))


class ProcessTrials(TrialDistribution):
    """p(y) of trials (T, N) with the processes summed out."""

    def __init__(self, readout: ProcessReadout, gaps: bool = False) -> None:
        super().__init__(readout.kernel.shape[-1], len(readout.offset), gaps)
        self.readout = readout

    def log_prob(self, value: Tensor) -> Tensor:
        trials = value.reshape(-1, *self.event_shape)
        if self.gaps:
            found = infer(self.readout, trials[:, None], ~trials.isnan())
        else:
            found = infer(self.readout, trials[None])
        return found.log_likelihood.reshape(value.shape[:-2])

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape, readout = torch.Size((*sample_shape, *self.batch_shape)), self.readout
        with torch.no_grad():
            roots = torch.linalg.cholesky(readout.kernel)
            noise = torch.randn(*shape, *roots.shape[:2], 1, dtype=roots.dtype, device=roots.device)
            mean = (roots @ noise)[..., 0].mT @ readout.loading.mT + readout.offset  # (*shape, T, N)
            return mean + readout.noise.sqrt() * torch.randn_like(mean)
