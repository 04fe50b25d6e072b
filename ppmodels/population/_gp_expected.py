"""What the M step of Gaussian-process factor analysis needs of the latents, and the timescales that fit them best."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ppmodels.base import Theta
from ppmodels.population._gp_path import ProcessReadout, infer, kernels, squared_lags
from ppmodels.population._readings import Readings
from ppmodels.population._readout_moments import ReadoutMoments, spread_seen
from ppmodels.population.kalman import Smoothed

STEPS = 10  # of Fisher scoring an M step: more gain nothing, as the E step moves what they climb


@dataclass(frozen=True)
class Expected:
    """q of the latents; theta is where it was taken.

    auto (P, T, T): sum over trials of E x_p x_p'. path: means and covariances within each bin.
    """

    theta: Theta
    path: Smoothed
    auto: Tensor
    readout: ReadoutMoments
    entropy: Tensor

    @classmethod
    def of(cls, theta: Theta, readout: ProcessReadout, y: Tensor, gaps: bool) -> "Expected":
        """Infer the latents of y (R, T, N); trials that were seen alike share one covariance."""
        latents, bins, _ = readout.kernel.shape
        mean, value = y.new_empty(len(y), bins, latents), y.new_empty(len(y))
        spread = y.new_empty(len(y) if gaps else 1, bins, latents, latents)
        auto, log_det = torch.zeros_like(readout.kernel), y.new_zeros(())
        for rows, seen in seen_alike(y, gaps):
            found = infer(readout, y[rows][None], seen)
            mean[rows] = found.mean[0].unflatten(0, (latents, bins)).permute(2, 1, 0)
            value[rows] = found.log_likelihood[0]
            root = found.cov_root[0].unflatten(0, (latents, bins))  # (P, T, P T)
            spread[rows if gaps else slice(1)] = torch.einsum("ptk,qtk->tpq", root, root)
            auto += len(rows) * (root @ root.mT)
            log_det += len(rows) * found.log_det[0]
        auto += mean.permute(2, 1, 0) @ mean.permute(2, 0, 1)
        path = Smoothed(mean, spread, spread[:, :0], value)
        entropy = 0.5 * (mean.numel() * (1 + math.log(2 * math.pi)) + log_det)
        readings = Readings.kept(y, gaps)
        moments = ReadoutMoments.of(mean, readings, spread_seen(spread, readings))
        return cls(theta, path, auto, moments, entropy)

    def log_joint(self, readout: ProcessReadout) -> Tensor:
        """Return E log p(y, x), ()."""
        return self.readout.expected_log_prob(readout) + self._processes(readout.kernel)[-1].sum()

    def maximise(self, bin_size: float, jitter: float) -> Theta:
        """Return the sites of the highest expected log density; of higher, as to the timescales."""
        timescale = self.timescales(self.theta["timescale"], bin_size, jitter)
        loading, offset, noise = self.readout.maximise()
        return {"timescale": timescale, "loading": loading, "offset": offset, "noise": noise.sqrt()}

    def timescales(self, timescale: Tensor, bin_size: float, jitter: float) -> Tensor:
        """Return timescales (P,) of higher expected log density, by Fisher scoring in their logarithms."""
        bins, trials, log_scale = self.auto.shape[-1], len(self.path.mean), timescale.log()

        def at(log_scale: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            kernel = kernels(log_scale.exp(), bins, bin_size, jitter)
            return kernel, *self._processes(kernel)

        kernel, root, inside, value = at(log_scale)
        for _ in range(STEPS):
            apart = squared_lags(bins, bin_size, kernel) / log_scale.exp().square()[:, None, None]
            change = torch.cholesky_solve(kernel * apart, root)  # K^-1 dK / d log tau; apart is 0 on the diagonal
            slope = 0.5 * ((change * inside.mT).sum((-2, -1)) - trials * _trace(change))
            curve = (0.5 * trials * (change * change.mT).sum((-2, -1))).clamp_min(1e-12)
            if float((slope.square() / curve).max()) < 1e-12 * (1 + float(value.abs().max())):
                break
            step, before = (slope / curve).clamp(-1, 1), value
            for _ in range(STEPS):
                kernel, root, inside, value = at(log_scale + step)
                if bool((value >= before).all()):
                    break
                step = torch.where(value >= before, step, step / 4)
            if not bool((value >= before).all()):
                step = torch.where(value >= before, step, 0.0)
                kernel, root, inside, value = at(log_scale + step)
            log_scale = log_scale + step
        return log_scale.exp()

    def _processes(self, kernel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cholesky factors of K_p, K_p^-1 sum E x_p x_p', and E log N(x_p; 0, K_p) over the trials, (P,)."""
        root, trials = torch.linalg.cholesky(kernel), len(self.path.mean)
        inside = torch.cholesky_solve(self.auto, root)
        log_det = 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        value = -0.5 * (_trace(inside) + trials * (log_det + kernel.shape[-1] * math.log(2 * math.pi)))
        return root, inside, value


def seen_alike(y: Tensor, gaps: bool) -> list[tuple[Tensor, Tensor | None]]:
    """Return groups of trials of which the same values were seen: their rows, and what was seen, (1, T, N)."""
    every = torch.arange(len(y), device=y.device)
    if not gaps:
        return [(every, None)]
    patterns, group = torch.unique(~y.isnan(), dim=0, return_inverse=True)
    return [(every[group == g], pattern[None]) for g, pattern in enumerate(patterns)]


def _trace(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1).sum(-1)
