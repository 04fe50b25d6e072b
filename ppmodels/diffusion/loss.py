"""What a network is trained on: draw a time and noise for every row, and ask for what was done."""

import torch
from torch import Tensor

from ppmodels.diffusion._noise import standard_normal
from ppmodels.diffusion.parametrisation import Denoiser, convert

WEIGHTINGS = ("simple", "bound", "min_snr")


def noise_loss(
    denoiser: Denoiser,
    x0: Tensor,
    *,
    t: Tensor | None = None,
    noise: Tensor | None = None,
    weighting: str = "simple",
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Squared error of the network, a mean over a row, (B,).

    x0: data (B, ...). t: times 1..T, (B,), uniform unless given. noise: like x0, drawn unless given.
    weighting: `simple`, none; `bound`, T times the weight that makes the mean over t the sum of the bound's
    divergences, a dimension (variance preserving schedules, variance beta); `min_snr`, at most 5 in x0's error.

    Source: Ho, Jain and Abbeel (2020), equations 12 and 14; Hang et al. (2023), arXiv:2303.09556, for min_snr.
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(f"no weighting {weighting!r}; there are: {', '.join(WEIGHTINGS)}")
    schedule = denoiser.schedule
    if t is None:
        t = torch.randint(1, schedule.steps + 1, (len(x0),), generator=generator, device=x0.device)
    noise = standard_normal(x0, generator) if noise is None else noise
    x = schedule.add_noise(x0, noise, t)
    alpha, sigma = schedule.level(t, x0)
    level = (t, alpha, sigma)
    if weighting == "simple":
        target = convert(noise, x, alpha, sigma, "epsilon", denoiser.prediction_type)
        return _mean_square(denoiser.predict(x, level, denoiser.prediction_type) - target)
    wrong = _mean_square(denoiser.epsilon(x, level) - noise)
    snr = ((alpha / sigma) ** 2).flatten()  # (B,)
    if weighting == "min_snr":
        return (5 / snr).clamp(max=1) * wrong
    beta = schedule.beta.to(x)[t]  # (B,)
    return schedule.steps * beta / (2 * (1 - beta) * sigma.flatten() ** 2) * wrong


def _mean_square(x: Tensor) -> Tensor:
    return x.square().flatten(1).mean(-1)
