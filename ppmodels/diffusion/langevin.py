"""Langevin dynamics: follow the score and shake; and the annealed form that NCSN samples with."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ppmodels.diffusion._noise import standard_normal

Callback = Callable[[int, float, Tensor], Any]


def langevin(
    score: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    step_size: float,
    num_steps: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Unadjusted Langevin: :math:`x \leftarrow x + \epsilon \nabla\log p(x) + \sqrt{2\epsilon} z`.

    Its law is not p but near it: on N(0, 1) the variance is :math:`1 / (1 - \epsilon / 2)`. x: (B, ...).

    Source: Roberts and Tweedie (1996), Bernoulli 2, 341-363.
    """
    _positive(step_size=step_size)
    for _ in range(num_steps):
        drift = x + step_size * score(x)
        x = drift + (2 * step_size) ** 0.5 * standard_normal(x, generator)
    return x


def annealed_langevin(
    score: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    sigmas: Tensor,
    *,
    step_size: float = 2e-5,
    num_steps: int = 100,
    denoise: bool = True,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    r"""Langevin steps at every level of a falling noise ladder, of size proportional to its variance.

    .. math:: \epsilon_i = \epsilon\, \sigma_i^2 / \sigma_L^2

    score: (x (B, ...), sigma (B,)) -> (B, ...). sigmas: (L,), falling. denoise: end with Tweedie's step.
    Song and Ermon's epsilon is twice ours.

    Raises: ValueError unless the ladder falls.
    Source: Song and Ermon (2019), arXiv:1907.05600, algorithm 1; (2020), arXiv:2006.09011, for the last step.
    """
    _positive(step_size=step_size)
    _falling(sigmas)
    for i, sigma in enumerate(sigmas.tolist()):
        level = torch.full((len(x),), sigma, dtype=x.dtype, device=x.device)  # (B,)
        epsilon = step_size * (sigma / float(sigmas[-1])) ** 2
        x = langevin(
            lambda value, at=level: score(value, at),
            x,
            step_size=epsilon,
            num_steps=num_steps,
            generator=generator,
        )
        if callback:
            callback(i, sigma, x)
    if denoise:
        last = float(sigmas[-1])
        x = x + last**2 * score(x, torch.full((len(x),), last, dtype=x.dtype, device=x.device))
    return x


def noise_ladder(sigma_max: float, sigma_min: float, levels: int) -> Tensor:
    """Geometrically falling noise, (levels,).

    Raises: ValueError unless 0 < sigma_min < sigma_max.
    """
    if not 0 < sigma_min < sigma_max or levels < 2:
        raise ValueError(f"two or more levels fall from sigma_max to sigma_min; got {sigma_max}, {sigma_min}")
    return torch.linspace(math.log(sigma_max), math.log(sigma_min), levels, dtype=torch.float64).exp()


def ladder_loss(
    score: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    sigmas: Tensor,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Denoising loss at a random level a row, weighted by :math:`\lambda(\sigma) = \sigma^2`, (B,).

    The weight makes every level's loss of the size of D / 2 or less.

    Source: Song and Ermon (2019), equation 6.
    """
    _falling(sigmas)
    choice = torch.randint(len(sigmas), (len(x),), generator=generator, device=sigmas.device)
    sigma = sigmas[choice].to(x)  # (B,)
    wide = sigma.reshape(-1, *(1,) * (x.ndim - 1))
    z = standard_normal(x, generator)
    return 0.5 * (wide * score(x + wide * z, sigma) + z).square().flatten(1).sum(-1)


def _falling(sigmas: Tensor) -> None:
    if sigmas.ndim != 1 or not len(sigmas) or bool((sigmas.diff() >= 0).any()) or float(sigmas[-1]) <= 0:
        raise ValueError("the noise ladder must be a vector of positive, falling sigmas")


def _positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"{name} must be positive; got {number}")
