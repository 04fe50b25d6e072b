"""How large a step may be: the density's curvature at the chains, from differences of gradients alone."""

from collections.abc import Callable

import torch
from torch import Tensor

PROBES, POWERS = 8, 15  # differences averaged for the diagonal, and taken for the largest curvature
NEAR = 1e-3  # how far apart two gradients are taken, in units of the coordinates' scale
SLOW = 1e-6  # share of the median curvature below which a coordinate is taken to be flat

Gradient = Callable[[Tensor], Tensor]


def scales(gradient: Gradient, x: Tensor, generator: torch.Generator) -> Tensor:
    """Return 1 / sqrt(|H_jj|), (dim,), averaged over chains x (C, dim): a posterior sd where nothing correlates.

    Source: Bekas, Kokiopoulou and Saad (2007), Applied Numerical Mathematics 57, for the diagonal by random signs.
    """
    step = NEAR * (1 + x.abs())
    total = torch.zeros_like(x)
    for _ in range(PROBES):
        sign = 2.0 * torch.randint(2, x.shape, generator=generator, device=x.device).to(x) - 1
        change = (gradient(x + step * sign) - gradient(x - step * sign)) / 2  # (C, dim)
        total += torch.where(change.isfinite(), change * sign / step, 0.0)
    curvature = (-total / PROBES).mean(0).abs()
    return curvature.clamp(min=SLOW * float(curvature.median()) + 1e-12).rsqrt()


def stiffness(gradient: Gradient, x: Tensor, scale: Tensor, generator: torch.Generator) -> float:
    """Return the largest curvature that any chain has in coordinates u, x = scale u, by power iteration."""
    direction = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    largest = torch.ones_like(x[:, 0])
    for _ in range(POWERS):
        direction = direction / direction.norm(dim=1, keepdim=True).clamp(min=1e-30)
        step = NEAR * scale * direction
        turned = scale * (gradient(x - step) - gradient(x + step)) / (2 * NEAR)
        good = turned.isfinite().all(1)
        largest = torch.where(good, turned.norm(dim=1), largest)
        direction = torch.where(good[:, None], turned, direction)
    return float(largest.max())
