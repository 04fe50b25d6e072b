r"""The variational bound of a diffusion model, in two forms of one expectation.

.. math:: \log p(x_0) \ge E_q\Bigl[\log p(x_T) + \sum_t \log p(x_{t-1} \mid x_t) -
    \sum_t \log q(x_t \mid x_{t-1})\Bigr]
    = E_q\Bigl[\log p(x_0 \mid x_1) - \sum_{t > 1} KL_t\Bigr] - KL_T

The second form needs no walk: its terms are divergences in closed form that can be drawn, and trained, one time
at a time. The first follows one walk, along which the errors of a good model cancel; the better the model, the
less it scatters.

Source: Ho, Jain and Abbeel (2020), arXiv:2006.11239, equations 3 and 5.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ppmodels.diffusion._noise import standard_normal
from ppmodels.diffusion.parametrisation import Denoiser
from ppmodels.diffusion.samplers import VARIANCES
from ppmodels.diffusion.schedule import Level, Posterior, posterior


class Bound(NamedTuple):
    """The terms, in nats: reconstruction (B,), prior (B,), denoising (B, T - 1) for t = 2..T."""

    reconstruction: Tensor
    prior: Tensor
    denoising: Tensor

    @property
    def total(self) -> Tensor:
        """The bound on log p(x_0), (B,)."""
        return self.reconstruction - self.prior - self.denoising.sum(-1)


def variational_bound(
    denoiser: Denoiser, x0: Tensor, *, variance: str = "beta", generator: torch.Generator | None = None
) -> Bound:
    """The bound from one noisy draw a row and time, each divergence in closed form.

    variance: of the model's steps, `beta` or `posterior`, as in `ancestral`; the last step has beta's.
    """
    levels = _levels(denoiser, variance)
    terms = []
    for s, t in pairwise(levels):
        law = posterior(s, t)
        x = t.alpha * x0 + t.sigma * standard_normal(x0, generator)
        gap = law.of_x0 * (x0 - denoiser.x0(x, t))  # of the two means
        spread = _variance(law, variance)
        if s.t == 0:
            terms.append(-_log_normal(gap, spread))
        else:
            ratio = law.variance / spread
            size = x0[0].numel() * (ratio - 1 - math.log(ratio)) / 2
            terms.append(size + _squared(gap) / (2 * spread))
    return Bound(-terms[0], prior_divergence(x0, levels[-1]), torch.stack(terms, -1)[:, 1:])


def monte_carlo_bound(
    denoiser: Denoiser, x0: Tensor, *, variance: str = "beta", generator: torch.Generator | None = None
) -> Tensor:
    """The bound as it is written: log densities along one forward walk a row, (B,)."""
    x, total = x0, torch.zeros_like(x0.flatten(1)[:, 0])
    levels = _levels(denoiser, variance)
    for s, t in pairwise(levels):
        law = posterior(s, t)
        z = standard_normal(x, generator)
        after = t.alpha / s.alpha * x + law.forward**0.5 * z
        mean = law.of_x * after + law.of_x0 * denoiser.x0(after, t)
        total = total + _log_normal(x - mean, _variance(law, variance)) - _log_normal(law.forward**0.5 * z, law.forward)
        x = after
    return total + _log_normal(x, levels[-1].alpha ** 2 + levels[-1].sigma ** 2)


def prior_divergence(x0: Tensor, level: Level) -> Tensor:
    r"""KL from :math:`q(x_T \mid x_0)` to the normal that sampling starts from, (B,)."""
    size = float(level.alpha**2 + level.sigma**2)
    ratio = level.sigma**2 / size
    return x0[0].numel() * (ratio - 1 - math.log(ratio)) / 2 + _squared(level.alpha * x0) / (2 * size)


def _levels(denoiser: Denoiser, variance: str) -> list[Level]:
    if variance not in VARIANCES:
        raise ValueError(f"no variance {variance!r}; there are: {', '.join(VARIANCES)}")
    return denoiser.schedule.grid(denoiser.schedule.steps, "linspace")[::-1]


def _variance(law: Posterior, name: str) -> float:
    # The posterior of the clean data has no width, and a density needs one.
    return law.forward if name == "beta" or law.variance == 0 else law.variance


def _log_normal(gap: Tensor, variance: float) -> Tensor:
    """Log density of N(0, variance) in every entry of a row, (B,)."""
    return -(_squared(gap) / variance + gap[0].numel() * math.log(2 * math.pi * variance)) / 2


def _squared(x: Tensor) -> Tensor:
    return x.square().flatten(1).sum(-1)
