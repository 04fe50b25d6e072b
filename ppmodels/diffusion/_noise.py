"""The one place where a sampler draws noise, so that a generator decides all of it."""

import torch
from torch import Tensor


def standard_normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Independent N(0, 1) of the shape, dtype and device of `like`."""
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
