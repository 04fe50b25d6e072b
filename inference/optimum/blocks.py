"""A batched density over any number of points, a block of its fixed size at a time."""

import math

import torch
from torch import Tensor

from inference.density import Batched, Density

BLOCK = 128  # points at once, at most: enough to make them cheap
BUDGET = 2_000_000  # numbers that one batched evaluation may write: about a millisecond


def together(density: Density, most: int = BLOCK) -> int:
    """Return how many points one evaluation takes in, a power of two up to `most`: more would only fill memory."""
    return min(most, 2 ** (max(BUDGET // max(density.cost, 1), 1).bit_length() - 1))


def log_probs(batched: Batched, x: Tensor) -> Tensor:
    """Return log p, (N,), at x, (N, dim); minus infinity where it is not a number."""
    size, values = batched.chains, []
    with torch.no_grad():
        for block in x.split(size):
            short = size - len(block)
            whole = torch.cat([block, block[-1:].expand(short, -1)]) if short else block
            values.append(batched(whole)[0][: len(block)])
    return torch.cat(values).nan_to_num(-math.inf, -math.inf, -math.inf)
