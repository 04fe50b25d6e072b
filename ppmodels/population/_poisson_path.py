"""The posterior of a path behind spike counts: Newton's method on a block-tridiagonal Hessian, O(T P^3) a step."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ppmodels.population._path_prior import PathPrior
from ppmodels.population._readings import activity
from ppmodels.population.block_tridiagonal import BlockTridiagonal
from ppmodels.population.kalman import Smoothed
from ppmodels.population.linear_system import LinearSystem

STEPS = 100  # of Newton's method at most
GAIN = 1e-12  # nats a trial still to be had, at which it ends
HALVINGS = 30


@dataclass(frozen=True)
class CountPath:
    """Gaussian q of the paths: moments, log p(y) as approximated, (R,), and log_det (R,) of its precision."""

    path: Smoothed
    log_det: Tensor


def count_path(system: LinearSystem, y: Tensor, bin_size: float, gaps: bool, variational: bool) -> CountPath:
    r"""Return q(z) of trials y (R, T, N) with rates :math:`\exp(C z_t + d)` in Hz.

    Laplace: the mode, and minus the inverse of the Hessian there; log p(y) is Laplace's approximation.
    Variational: the Gaussian of the highest ELBO, whose mean and precision solve the same equations at the
    rates :math:`\exp(c_i^\top \mu_t + d_i + c_i^\top \Sigma_t c_i / 2)`; log p(y) is the ELBO.

    Source: Macke et al. (2011), NIPS 24, for Laplace; Khan, Aravkin, Friedlander and Seeger (2013), ICML 30.
    """
    problem = _Problem.of(system, y, bin_size, gaps)
    mean = torch.zeros_like(y[..., :1]).expand(-1, -1, system.latents).contiguous()
    bend = torch.zeros_like(y)  # c' Sigma c / 2, (R, T, N)
    for _ in range(STEPS):
        grad, precision = problem.slope(mean, bend)
        step = precision.solve(grad[..., None])[..., 0]
        left = (grad * step).sum((-2, -1))  # twice the gain to be had, (R,)
        before, mean = bend, problem.forward(mean, step, bend, left)
        bend = problem.bend(precision.covariance()[0]) if variational else bend
        moved = (bend - before).abs().amax() if variational else torch.zeros(())
        if float(left.max()) < GAIN and float(moved) < 1e-9:
            break
    _, precision = problem.slope(mean, bend)
    cov, lag_one = precision.covariance()
    value = problem.value(mean, problem.bend(cov) if variational else bend)
    value = value + 0.5 * (problem.prior.log_det - precision.log_det)
    if variational:
        spread = (problem.prior.diagonal * cov).sum((-3, -2, -1))
        spread = spread + 2 * (problem.prior.below * lag_one).sum((-3, -2, -1))
        value = value + 0.5 * (mean.shape[1] * mean.shape[2] - spread)
    return CountPath(Smoothed(mean, cov, lag_one, value), precision.log_det)


@dataclass(frozen=True)
class _Problem:
    """log p(y, z) as a function of the paths."""

    system: LinearSystem
    prior: PathPrior
    y: Tensor
    seen: Tensor
    constant: Tensor
    base: Tensor  # log of the expected count at z = 0, (N,)
    pairs: Tensor  # c c' of each neuron, (N, P P)

    @classmethod
    def of(cls, system: LinearSystem, y: Tensor, bin_size: float, gaps: bool) -> "_Problem":
        missing = y.isnan()
        seen, counts = (~missing).to(y), torch.where(missing, 0.0, y)
        active = activity(~missing) if gaps else torch.ones_like(y[..., 0], dtype=torch.bool)
        constant = -torch.lgamma(counts + 1).sum((-2, -1))
        base = system.offset + math.log(bin_size)
        pairs = (system.loading[:, :, None] * system.loading[:, None, :]).flatten(1)
        return cls(system, PathPrior.of(system, active), counts, seen, constant, base, pairs)

    def value(self, mean: Tensor, bend: Tensor) -> Tensor:
        """Return E log p(y | z) + log p(mean) less its normaliser, (R,)."""
        eta = mean @ self.system.loading.mT + self.base
        likelihood = (self.seen * (self.y * eta - (eta + bend).exp())).sum((-2, -1))
        prior = self.prior.constant + (self.prior.start[:, 0] * mean[:, 0]).sum(-1)
        return likelihood + self.constant + prior - 0.5 * (mean * self._times(mean)).sum((-2, -1))

    def slope(self, mean: Tensor, bend: Tensor) -> tuple[Tensor, BlockTridiagonal]:
        """Return the gradient, (R, T, P), and minus the Hessian, factored."""
        rate = self.seen * (mean @ self.system.loading.mT + self.base + bend).exp()  # (R, T, N)
        grad = (self.seen * self.y - rate) @ self.system.loading - self._times(mean)
        grad = torch.cat([grad[:, :1] + self.prior.start, grad[:, 1:]], 1)
        information = (rate @ self.pairs).unflatten(-1, (self.system.latents,) * 2)
        return grad, BlockTridiagonal.factor(self.prior.diagonal + information, self.prior.below)

    def forward(self, mean: Tensor, step: Tensor, bend: Tensor, left: Tensor) -> Tensor:
        """Return the means after a step, halved for the trials where it overshoots."""
        share, now = torch.ones_like(left), self.value(mean, bend)
        for _ in range(HALVINGS):
            there = self.value(mean + share[:, None, None] * step, bend)
            short = ~(there >= now + 0.1 * share * left - 1e-12 * now.abs())
            if not short.any():
                break
            share = torch.where(short, share / 2, share)
        return mean + share[:, None, None] * step

    def bend(self, cov: Tensor) -> Tensor:
        """Return half the variance of each log rate, (R, T, N)."""
        return 0.5 * cov.flatten(-2) @ self.pairs.mT

    def _times(self, mean: Tensor) -> Tensor:
        """The prior's precision times the means, (R, T, P)."""
        column = mean[..., None]
        down = self.prior.below @ column[:, :-1]
        up = self.prior.below.mT @ column[:, 1:]
        pad = torch.nn.functional.pad
        product = self.prior.diagonal @ column + pad(down, (0, 0, 0, 0, 1, 0)) + pad(up, (0, 0, 0, 0, 0, 1))
        return product[..., 0]
