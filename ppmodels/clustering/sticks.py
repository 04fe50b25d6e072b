"""Weights broken off a stick, and the number of clusters that they make."""

import torch
from torch import Tensor


def stick_breaking(sticks: Tensor) -> Tensor:
    """Return the pieces of a stick of length 1 of which shares v (..., J) are broken off in turn, (..., J + 1)."""
    rest = torch.cat([torch.ones_like(sticks[..., :1]), (1 - sticks).cumprod(-1)], -1)
    return torch.cat([sticks, torch.ones_like(sticks[..., :1])], -1) * rest


def expected_clusters(concentration: float, rows: int) -> float:
    """Return how many clusters so many rows have on average, in the Chinese restaurant process."""
    return sum(concentration / (concentration + row) for row in range(rows))
