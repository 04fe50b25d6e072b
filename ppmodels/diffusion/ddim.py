"""DDIM: the same marginals as DDPM, with as much or as little fresh noise as wanted, and a way back."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ppmodels.diffusion._noise import standard_normal
from ppmodels.diffusion.parametrisation import Denoiser
from ppmodels.diffusion.schedule import posterior


def ddim(
    denoiser: Denoiser,
    x: Tensor,
    *,
    num_inference_steps: int = 50,
    eta: float = 0.0,
    spacing: str = "linspace",
    start: float | None = None,
    generator: torch.Generator | None = None,
    callback: Callable[[int, float, Tensor], Any] | None = None,
) -> Tensor:
    r"""Step from t to s with some fresh noise, or none.

    .. math:: x_s = \alpha_s \hat x_0 + \sqrt{\sigma_s^2 - \omega^2}\,\hat\epsilon + \omega z, \quad
        \omega^2 = \eta^2 \sigma_s^2 \Bigl(1 - \frac{\alpha_t^2 \sigma_s^2}{\alpha_s^2 \sigma_t^2}\Bigr)

    At eta 0 this is Euler's method for the probability flow; at eta 1, DDPM with the posterior variance.
    x: what to start from, (B, ...): noise at T, or at the time `start`.

    Source: Song, Meng and Ermon (2021), arXiv:2010.02502, equations 12 and 16.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta is the share of fresh noise, between 0 and 1; got {eta}")
    grid = denoiser.schedule.grid(num_inference_steps, spacing, start)
    for i, (t, s) in enumerate(pairwise(grid)):
        fresh = eta**2 * posterior(s, t).variance
        ratio = s.alpha / t.alpha
        rest = max(s.sigma**2 - fresh, 0.0) ** 0.5
        epsilon = denoiser.epsilon(x, t)
        x = (ratio * x).add_(epsilon, alpha=rest - ratio * t.sigma)
        if fresh > 0:
            x = x.add_(standard_normal(x, generator), alpha=fresh**0.5)
        if callback:
            callback(i, s.t, x)
    return x


def ddim_encode(
    denoiser: Denoiser,
    x0: Tensor,
    *,
    num_inference_steps: int = 50,
    spacing: str = "linspace",
    iterations: int = 0,
) -> Tensor:
    """The noise from which `ddim`, with eta 0 and the same grid, makes x0 again, (B, ...).

    iterations: fixed-point corrections a step. With 0 the noise of the nearer level stands for that of the
    farther one, an error that falls with the number of steps; a few iterations invert the sampler itself.

    Source: Song, Meng and Ermon (2021), section 4.3; Pan et al. (2023), arXiv:2309.04907, for the iterations.
    """
    grid = denoiser.schedule.grid(num_inference_steps, spacing)[::-1]
    x = x0
    for i, (s, t) in enumerate(pairwise(grid)):
        ratio = t.alpha / s.alpha
        # The network was not trained on clean data: the first step asks it at the first noisy level.
        epsilon = denoiser.epsilon(ratio * x if i == 0 else x, t if i == 0 else s)
        for _ in range(iterations):
            epsilon = denoiser.epsilon(ratio * x + (t.sigma - ratio * s.sigma) * epsilon, t)
        x = ratio * x + (t.sigma - ratio * s.sigma) * epsilon
    return x
