"""What stands between the mean of a context and its scores: nothing, or a layer of units, h = tanh(m W + b).

Its weights are the last d + 1 rows of v, W (d, d) and then b.
"""

import torch
from torch import Tensor


def identity(dim: int) -> Tensor:
    """Return W = I and b = 0, (d + 1, d): where means are small, nothing is changed."""
    return torch.eye(dim + 1)[:, :dim].contiguous()


def forward(mean: Tensor, layer: Tensor) -> Tensor:
    """Return h, (n, B, d), of means (n, B, d)."""
    return (mean @ layer[:-1] + layer[-1]).tanh_()


def backward(mean: Tensor, hidden: Tensor, by_hidden: Tensor, layer: Tensor) -> tuple[Tensor, Tensor]:
    """Return the derivatives by the means, (n, B, d), and by the layer, (d + 1, d)."""
    inside = by_hidden * (1 - hidden.square())
    flat = inside.flatten(0, 1)
    return inside @ layer[:-1].mT, torch.cat([mean.flatten(0, 1).mT @ flat, flat.sum(0, keepdim=True)])
