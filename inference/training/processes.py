"""Several processes, a device each, that learn as one: shares of the rows, sums of what they found."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def count() -> int:
    """Return the number of processes; 1 where `torch.distributed` was not initialised."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def number() -> int:
    """Return which one this is, from 0."""
    return dist.get_rank() if count() > 1 else 0


def share(rows: Tensor | None, total: int) -> tuple[Tensor | None, float]:
    """Return this process's rows of a batch, and how much of the batch they are.

    rows: all rows of the batch; None for all of `total`, or for a loss without rows when `total` is 0.
    Raises: ValueError when there are fewer rows than processes.
    """
    if count() == 1:
        return rows, 1.0
    if rows is None and not total:
        return None, 1 / count()
    whole = torch.arange(total, device=torch.get_default_device()) if rows is None else rows
    if len(whole) < count():
        raise ValueError(f"{count()} processes cannot share a batch of {len(whole)} rows; raise batch_size")
    mine = whole.tensor_split(count())[number()]
    return mine, len(mine) / len(whole)


def add_up(tensors: Sequence[Tensor]) -> None:
    """Replace every tensor by its sum over the processes; one message for each dtype."""
    if count() == 1:
        return
    for dtype in {t.dtype for t in tensors}:
        same = [t for t in tensors if t.dtype == dtype]
        flat = torch.cat([t.flatten() for t in same])
        dist.all_reduce(flat)
        for tensor, part in zip(same, flat.split([t.numel() for t in same]), strict=True):
            tensor.copy_(part.reshape(tensor.shape))


def agree(tensors: Iterable[Tensor]) -> None:
    """Give every process the values of the first."""
    if count() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def gather(tensor: Tensor) -> list[Tensor]:
    """Return the tensors of all processes, in their order."""
    if count() == 1:
        return [tensor]
    parts: list[Any] = [None] * count()
    dist.all_gather_object(parts, tensor)
    return parts
