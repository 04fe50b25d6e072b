"""Which rows a step looks at."""

import math
from functools import lru_cache

import torch
from torch import Tensor


def minibatch(rows: int, batch_size: int | None, step: int, seed: int) -> Tensor | None:
    """Return the rows of this step, (here,): each epoch a new order of all rows, in batches of equal size.

    A function of its arguments alone, so that a resumed run goes on with the very same rows.
    """
    if batch_size is None:
        return None
    batches = math.ceil(rows / batch_size)
    epoch, place = divmod(step, batches)
    return _order(rows, batches, (seed * 1_000_003 + epoch) % 2**63)[place].to(torch.get_default_device())


@lru_cache(maxsize=2)
def _order(rows: int, batches: int, seed: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(rows, generator=generator, device="cpu").tensor_split(batches)
