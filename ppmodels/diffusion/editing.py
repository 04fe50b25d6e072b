"""Starting from what is there: vary a picture, or fill in what is missing."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ppmodels.diffusion._noise import standard_normal
from ppmodels.diffusion.ddim import ddim
from ppmodels.diffusion.parametrisation import Denoiser
from ppmodels.diffusion.samplers import VARIANCES
from ppmodels.diffusion.schedule import posterior


def image_to_image(
    denoiser: Denoiser,
    x0: Tensor,
    *,
    strength: float = 0.5,
    num_inference_steps: int = 50,
    eta: float = 0.0,
    spacing: str = "linspace",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Noise x0 (B, ...) up to a share of the schedule, then sample back by DDIM.

    strength: 0 returns x0, 1 forgets nearly all of it. num_inference_steps: those of the whole schedule, of
    which this share is run.

    Source: Meng et al. (2022), arXiv:2108.01073.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength lies between 0 and 1; got {strength}")
    start = round(strength * denoiser.schedule.steps)
    if start == 0:
        return x0.clone()
    times = torch.full((len(x0),), start, device=x0.device)
    x = denoiser.schedule.add_noise(x0, standard_normal(x0, generator), times)
    run = min(max(1, round(strength * num_inference_steps)), start)
    return ddim(
        denoiser,
        x,
        num_inference_steps=run,
        eta=eta,
        spacing=spacing,
        start=start,
        generator=generator,
    )


def inpaint(
    denoiser: Denoiser,
    x0: Tensor,
    known: Tensor,
    *,
    num_inference_steps: int = 100,
    resamples: int = 10,
    variance: str = "beta",
    spacing: str = "balanced",
    generator: torch.Generator | None = None,
    callback: Callable[[int, float, Tensor], Any] | None = None,
) -> Tensor:
    """Draw what is not known, given what is: (B, ...), equal to x0 where `known` is true.

    At every level the known part is noised data and the rest an ancestral step; going back and forth between
    two levels brings the two into harmony. One visit a level is fast and ignores part of what is known.

    known: Boolean, of the shape of x0 or one that expands to it. resamples: visits a level. variance: as in
    `ancestral`; the posterior's, with few levels, leaves the rest too narrow.

    Source: Lugmayr et al. (2022), arXiv:2201.09865, algorithm 1.
    """
    if known.dtype != torch.bool:
        raise ValueError(f"known must be Boolean, true where x0 is to stay; got {known.dtype}")
    try:
        known = known.expand(x0.shape)
    except RuntimeError:
        raise ValueError(f"known {tuple(known.shape)} does not fit data {tuple(x0.shape)}") from None
    if resamples < 1 or variance not in VARIANCES:
        raise ValueError(f"resamples must be positive, variance beta or posterior; got {resamples}, {variance}")
    grid = denoiser.schedule.grid(num_inference_steps, spacing)
    x = standard_normal(x0, generator) * (grid[0].alpha ** 2 + grid[0].sigma ** 2) ** 0.5
    for i, (t, s) in enumerate(pairwise(grid)):
        law = posterior(s, t)
        for visit in range(resamples):
            if visit > 0:
                x = t.alpha / s.alpha * x + law.forward**0.5 * standard_normal(x, generator)
            spread = law.forward if variance == "beta" and s.t > 0 else law.variance
            drawn = law.of_x * x + law.of_x0 * denoiser.x0(x, t) + spread**0.5 * standard_normal(x, generator)
            x = torch.where(known, s.alpha * x0 + s.sigma * standard_normal(x0, generator), drawn)
        if callback:
            callback(i, s.t, x)
    return x
