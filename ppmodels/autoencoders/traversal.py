"""Walks through the latent space, and whether it has holes or cliffs."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ppmodels.autoencoders.bounds import elbo
from ppmodels.autoencoders.collapse import information
from ppmodels.autoencoders.vae import VariationalAutoencoder

Decode = Callable[[Tensor], Tensor]


def traverse(decode: Decode, z: Tensor, values: Tensor) -> Tensor:
    """Return what becomes of one code, (K,), when each coordinate in turn takes each value, (V,): (K, V, D)."""
    latents, steps = len(z), len(values)
    codes = z.expand(latents, steps, -1).clone()  # (K, V, K)
    codes[torch.arange(latents), :, torch.arange(latents)] = values.to(z)
    return decode(codes)


def interpolate(decode: Decode, start: Tensor, end: Tensor, steps: int = 8) -> Tensor:
    """Return the rows between two codes, (K,) each, ends included, (steps, D): along an arc.

    Normal draws lie near a sphere; a straight line between two would pass where none are. The direction turns
    evenly and the length changes evenly; opposite codes, which have no arc, are joined by the straight line.

    Source: White (2016), arXiv:1609.04468, section 2.1, of directions.
    """
    share = torch.linspace(0, 1, steps, dtype=start.dtype, device=start.device)[:, None]
    straight = (1 - share) * start + share * end
    lengths = torch.stack([start.norm(), end.norm()])
    directions = torch.stack([start, end]) / lengths[:, None].clamp(min=1e-12)
    angle = (directions[0] @ directions[1]).clamp(-1, 1).acos()
    if float(angle.sin()) < 1e-4 * math.pi:
        return decode(straight)
    turned = (((1 - share) * angle).sin() * directions[0] + (share * angle).sin() * directions[1]) / angle.sin()
    return decode(turned * torch.lerp(lengths[0], lengths[1], share))


@torch.no_grad()
def continuity(decode: Decode, z: Tensor, step: float = 0.1) -> float:
    """Return how far a row moves when its code, (N, K), moves by `step` in any direction.

    In units of the distance of two rows at random: small where near codes mean near rows.
    """
    direction = torch.nn.functional.normalize(torch.randn_like(z), dim=-1)
    here = decode(z)
    moved = (decode(z + step * direction) - here).norm(dim=-1).mean()
    return float(moved / (here - here[torch.randperm(len(here))]).norm(dim=-1).mean().clamp(min=1e-12))


@torch.no_grad()
def incompleteness(model: VariationalAutoencoder, x: Tensor) -> float:
    """Return the divergence of all rows' posteriors together from the prior, nats: 0 where no draw meets a hole.

    Source: Hoffman and Johnson (2016), ELBO surgery, equation 7.
    """
    return max(0.0, float(elbo(model, x)[1].sum(-1).mean()) - information(model, x))
