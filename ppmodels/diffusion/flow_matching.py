r"""Flow matching: a velocity that carries noise to data along straight lines.

.. math:: x_t = (1 - t) x_0 + t\epsilon, \quad v(x, t) = E[\epsilon - x_0 \mid x_t = x], \quad dx / dt = v

Time runs as in the rest of the family: data at 0, noise at 1. Texts that put the data at 1 have the other sign.

Source: Lipman et al. (2023), arXiv:2210.02747; Liu, Gong and Liu (2023), arXiv:2209.03003.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ppmodels.diffusion._noise import standard_normal

Velocity = Callable[[Tensor, Tensor], Tensor]
METHODS = ("euler", "midpoint", "heun")


@dataclass(frozen=True)
class StraightPath:
    """Signal 1 - t and noise t on 0..1."""

    def level(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Alpha and sigma at t (B,), shaped to multiply x (B, ...)."""
        if t.shape != x.shape[:1] or bool(((t < 0) | (t > 1)).any()):
            raise ValueError(f"times must be ({len(x)},), one a row, between 0 and 1")
        sigma = t.to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
        return 1 - sigma, sigma


def flow_matching_loss(
    velocity: Velocity,
    x0: Tensor,
    *,
    t: Tensor | None = None,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Squared distance to the straight line's velocity, a mean over a row, (B,).

    x0: data (B, ...). t: times (B,), uniform unless given. noise: like x0, drawn unless given.
    """
    if t is None:
        t = torch.rand(len(x0), generator=generator, dtype=x0.dtype, device=x0.device)
    noise = standard_normal(x0, generator) if noise is None else noise
    alpha, sigma = StraightPath().level(t, x0)
    told = velocity(alpha * x0 + sigma * noise, t)
    if not told.shape == x0.shape == noise.shape:
        shapes = f"{tuple(x0.shape)}, {tuple(noise.shape)}, {tuple(told.shape)}"
        raise ValueError(f"data, noise and velocity must have one shape; got {shapes}")
    return (told - (noise - x0)).square().flatten(1).mean(-1)


def pair(x0: Tensor, noise: Tensor) -> Tensor:
    """The noise (B, ...), reordered so that its lines to the data are shortest: they cross less.

    Source: Tong et al. (2024), arXiv:2302.00482, section 3.3; Pooladian et al. (2023), arXiv:2304.14772.
    """
    cost = torch.cdist(x0.flatten(1), noise.flatten(1)) ** 2  # (B, B)
    return noise[torch.as_tensor(linear_sum_assignment(cost.cpu().numpy())[1], device=noise.device)]


def flow_sample(
    velocity: Velocity,
    noise: Tensor,
    *,
    num_inference_steps: int = 20,
    method: str = "midpoint",
    callback: Callable[[int, float, Tensor], Any] | None = None,
) -> Tensor:
    """Carry noise (B, ...) to data in equal steps. euler: 1 evaluation a step; midpoint and heun: 2."""
    if method not in METHODS:
        raise ValueError(f"no method {method!r}; there are: {', '.join(METHODS)}")
    if num_inference_steps < 1:
        raise ValueError(f"num_inference_steps must be positive; got {num_inference_steps}")
    x, times = noise, torch.linspace(1, 0, num_inference_steps + 1, dtype=torch.float64).tolist()
    for i, (t, s) in enumerate(pairwise(times)):
        slope = velocity(x, _rows(t, x))
        if method == "midpoint":
            slope = velocity(x + (s - t) / 2 * slope, _rows((t + s) / 2, x))
        elif method == "heun":
            slope = (slope + velocity(x + (s - t) * slope, _rows(s, x))) / 2
        x = x + (s - t) * slope
        if callback:
            callback(i, s, x)
    return x


def _rows(t: float, x: Tensor) -> Tensor:
    return torch.full((len(x),), t, dtype=x.dtype, device=x.device)
