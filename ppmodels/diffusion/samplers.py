"""From noise to data: one front door to every sampler, and the ancestral one that DDPM began with."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ppmodels.diffusion._noise import standard_normal
from ppmodels.diffusion.ddim import ddim
from ppmodels.diffusion.guidance import classifier_free
from ppmodels.diffusion.parametrisation import Denoiser
from ppmodels.diffusion.schedule import Schedule, posterior
from ppmodels.diffusion.solvers import dpmpp_2m, dpmpp_3m, heun, pndm

VARIANCES = ("beta", "posterior")
Callback = Callable[[int, float, Tensor], Any]


def sample(
    network: Callable[..., Tensor],
    schedule: Schedule,
    shape: Sequence[int],
    *,
    method: str = "dpmpp_2m",
    num_inference_steps: int = 20,
    prediction_type: str = "epsilon",
    label: Tensor | None = None,
    guidance_scale: float = 1.0,
    null_label: int | None = None,
    generator: torch.Generator | None = None,
    like: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """Draw data of a shape (B, ...) from the network and fresh noise.

    network: (x, t) -> (B, ...), or (x, t, label) when labels are given.
    method: ancestral, ddim, pndm, dpmpp_2m, dpmpp_3m or heun; options are those of that function.
    label: (B,). guidance_scale: 1 is the conditional network alone; other values need null_label.
    like: a tensor of the dtype and device wanted.

    Raises: ValueError for an unknown method, or guidance without labels.
    """
    if method not in METHODS:
        raise ValueError(f"no method {method!r}; there are: {', '.join(METHODS)}")
    guided = classifier_free(network, label, guidance_scale, null_label)
    like = torch.empty(0) if like is None else like
    noise = standard_normal(like.new_empty(tuple(shape)), generator) * initial_scale(schedule)
    denoiser = Denoiser(guided, schedule, prediction_type)
    if method in ("ancestral", "ddim"):
        options["generator"] = generator
    return METHODS[method](denoiser, noise, num_inference_steps=num_inference_steps, **options)


def initial_scale(schedule: Schedule) -> float:
    """Sd of the noise to start from: what centred data of unit variance have become at T."""
    return float((schedule.alpha[-1] ** 2 + schedule.sigma[-1] ** 2).sqrt())


def ancestral(
    denoiser: Denoiser,
    x: Tensor,
    *,
    num_inference_steps: int | None = None,
    variance: str = "beta",
    spacing: str = "linspace",
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    r"""Walk down the chain by :math:`x_s \sim q(x_s \mid x_t, \hat x_0(x_t))`, with one of two variances.

    x: noise at T, (B, ...). num_inference_steps: all T when None. No noise is added in the last step.
    variance: `beta`, that of q(x_t | x_s), right for unit data; `posterior`, right for a single point.

    Source: Ho, Jain and Abbeel (2020), algorithm 2.
    """
    if variance not in VARIANCES:
        raise ValueError(f"no variance {variance!r}; there are: {', '.join(VARIANCES)}")
    steps = denoiser.schedule.steps if num_inference_steps is None else num_inference_steps
    grid = denoiser.schedule.grid(steps, spacing)
    for i, (t, s) in enumerate(pairwise(grid)):
        law = posterior(s, t)
        x = law.of_x * x + law.of_x0 * denoiser.x0(x, t)
        if s.t > 0:
            spread = law.forward if variance == "beta" else law.variance
            x = x + spread**0.5 * standard_normal(x, generator)
        if callback:
            callback(i, s.t, x)
    return x


METHODS = {
    "ancestral": ancestral,
    "ddim": ddim,
    "pndm": pndm,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_3m": dpmpp_3m,
    "heun": heun,
}
