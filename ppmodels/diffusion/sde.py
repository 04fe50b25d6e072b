r"""Noise in continuous time: :math:`dx = f(t) x\, dt + g(t)\, dW`, run backwards with or without fresh noise.

.. math:: dx = (f x - g^2 \nabla\log p_t)\, dt + g\, d\bar W, \qquad
    dx = (f x - \tfrac12 g^2 \nabla\log p_t)\, dt

Both carry the noise at `horizon` back to the data at 0 with the same marginals. A score maps
(x (B, ...), t (B,)) -> (B, ...).

Source: Song et al. (2021), arXiv:2011.13456, equations 6 and 13; Karras et al. (2022), arXiv:2206.00364.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from ppmodels.diffusion._noise import standard_normal
from ppmodels.diffusion._ode import Solution, integrate

Score = Callable[[Tensor, Tensor], Tensor]
Callback = Callable[[int, float, Tensor], Any]


class SDE(Protocol):
    """What every process knows: its end, its marginals, and its drift and diffusion."""

    @property
    def horizon(self) -> float: ...

    def level(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Alpha and sigma of x_t = alpha x_0 + sigma epsilon at t (B,), shaped to multiply x."""
        ...

    def rates(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """The f and g squared at t (B,), shaped to multiply x."""
        ...


@dataclass(frozen=True)
class VP:
    """Variance preserving: DDPM in continuous time, beta linear in t on 0..1."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    horizon: float = 1.0

    def __post_init__(self):
        _rising(beta_min=self.beta_min, beta_max=self.beta_max)

    def level(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        t = _columns(t, x)
        total = self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2  # integral of beta
        return (-total / 2).exp(), torch.expm1(-total).abs().sqrt()

    def rates(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        beta = self.beta_min + (self.beta_max - self.beta_min) * _columns(t, x)
        return -beta / 2, beta


@dataclass(frozen=True)
class VE:
    """Variance exploding: NCSN in continuous time, sigma geometric in t on 0..1 and 0 at the data."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    horizon: float = 1.0

    def __post_init__(self):
        _rising(sigma_min=self.sigma_min, sigma_max=self.sigma_max)

    def level(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        growth = 2 * math.log(self.sigma_max / self.sigma_min) * _columns(t, x)
        return torch.ones_like(growth), self.sigma_min * growth.expm1().sqrt()

    def rates(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        rate = 2 * math.log(self.sigma_max / self.sigma_min)
        t = _columns(t, x)
        return torch.zeros_like(t), self.sigma_min**2 * rate * (rate * t).exp()


@dataclass(frozen=True)
class EDM:
    """Karras's clock: t is sigma itself, from 0 to sigma_max."""

    sigma_max: float = 80.0

    def __post_init__(self):
        _rising(zero=0.0, sigma_max=self.sigma_max)

    @property
    def horizon(self) -> float:
        return self.sigma_max

    def level(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        t = _columns(t, x)
        return torch.ones_like(t), t

    def rates(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        t = _columns(t, x)
        return torch.zeros_like(t), 2 * t


def simulate(
    sde: SDE,
    x: Tensor,
    *,
    num_steps: int = 1000,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Data (B, ...) carried forward to noise, step by step, by Euler and Maruyama."""
    times = torch.linspace(0, sde.horizon, num_steps + 1, dtype=torch.float64).tolist()
    for i, (t, later) in enumerate(pairwise(times)):
        f, g2 = sde.rates(_rows((t + later) / 2, x), x)
        x = x + (later - t) * f * x + ((later - t) * g2).sqrt() * standard_normal(x, generator)
        if callback:
            callback(i, later, x)
    return x


def reverse(
    sde: SDE,
    score: Score,
    x: Tensor,
    *,
    num_inference_steps: int = 1000,
    corrector_steps: int = 0,
    snr: float = 0.16,
    end: float = 0.01,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Noise (B, ...) carried back to data by the reverse SDE, and a last step without noise.

    corrector_steps: Langevin steps after each, of size set by snr (predictor and corrector).
    end: sigma / alpha at which to stop. Steps are equal in the logarithm of that ratio.

    Source: Song et al. (2021), algorithms 1 to 3 and appendix G.
    """
    times = _falling_times(sde, end, num_inference_steps)
    for i, (t, s) in enumerate(pairwise(times)):
        f, g2 = sde.rates(_rows(t, x), x)
        step = t - s
        x = x - step * (f * x - g2 * score(x, _rows(t, x)))
        x = x + (step * g2).sqrt() * standard_normal(x, generator)
        for _ in range(corrector_steps):
            x = _correct(score, x, _rows(s, x), snr, generator)
        if callback:
            callback(i, s, x)
    alpha, sigma = sde.level(_rows(times[-1], x), x)
    return (x + sigma**2 * score(x, _rows(times[-1], x))) / alpha


def probability_flow(sde: SDE, score: Score) -> Score:
    """The velocity field with the marginals of the SDE, (x (B, ...), t (B,)) -> (B, ...)."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        f, g2 = sde.rates(t, x)
        return f * x - g2 / 2 * score(x, t)

    return velocity


def flow(velocity: Score, x: Tensor, start: float, end: float, *, rtol: float = 1e-6, atol: float = 1e-6) -> Solution:
    """Follow a velocity field from start to end, either way: encode data, or decode noise (B, ...)."""
    return integrate(lambda value, t: velocity(value, _rows(t, value)), x, start, end, rtol=rtol, atol=atol)


def _correct(score: Score, x: Tensor, t: Tensor, snr: float, generator: torch.Generator | None) -> Tensor:
    """One Langevin step whose size keeps the ratio of drift to noise."""
    z, gradient = standard_normal(x, generator), score(x, t)
    norms = [a.flatten(1).norm(dim=-1).mean() for a in (z, gradient)]
    step = (snr * norms[0] / norms[1]) ** 2
    return x + step * gradient + (2 * step).sqrt() * z


def _falling_times(sde: SDE, end: float, steps: int) -> list[float]:
    """Times from the horizon to where sigma / alpha is `end`, equal steps in its logarithm: (steps + 1)."""
    fine = sde.horizon * torch.linspace(0, 1, 20_001, dtype=torch.float64)[1:] ** 4
    alpha, sigma = sde.level(fine, fine)
    ratio = (sigma / alpha).log()
    if not 0 < end < float(ratio[-1].exp()) or steps < 1:
        most = float(ratio[-1].exp())
        raise ValueError(f"end must lie between 0 and {most:.4g}, steps be positive; got {end}, {steps}")
    wanted = torch.linspace(float(ratio[-1]), max(math.log(end), float(ratio[0])), steps + 1).double()
    right = torch.searchsorted(ratio, wanted).clamp(1, len(fine) - 1)
    part = (wanted - ratio[right - 1]) / (ratio[right] - ratio[right - 1])
    return torch.lerp(fine[right - 1], fine[right], part.clamp(0, 1)).tolist()


def _rows(t: float, x: Tensor) -> Tensor:
    return torch.full((len(x),), t, dtype=x.dtype, device=x.device)


def _columns(t: Tensor, x: Tensor) -> Tensor:
    if t.shape != x.shape[:1]:
        raise ValueError(f"times must be ({len(x)},), one a row; got {tuple(t.shape)}")
    return t.to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))


def _rising(**ends: float) -> None:
    (low, high), names = ends.values(), " and ".join(ends)
    if not 0 <= low < high or not high < float("inf"):
        raise ValueError(f"{names} must rise from 0 or more; got {low} and {high}")
