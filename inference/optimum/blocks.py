"""A batched density over any number of points, a block of its fixed size at a time."""

import math

import torch
from torch import Tensor

from inference.density import Batched

BLOCK = 128  # points at once: enough to make them cheap, few enough for data of many rows


def log_probs(batched: Batched, x: Tensor) -> Tensor:
    """Return log p, (N,), at x, (N, dim); minus infinity where it is not a number."""
    size, values = batched.chains, []
    with torch.no_grad():
        for block in x.split(size):
            short = size - len(block)
            whole = torch.cat([block, block[-1:].expand(short, -1)]) if short else block
            values.append(batched(whole)[0][: len(block)])
    return torch.cat(values).nan_to_num(-math.inf, -math.inf, -math.inf)
