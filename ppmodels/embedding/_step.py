"""One step: the scores of a few hundred words against their neighbours and against noise, and the way up."""

from typing import NamedTuple

import torch
from torch import Tensor

from ppmodels.embedding._objective import Objective
from ppmodels.embedding.windows import Windows


class Prediction(NamedTuple):
    """What predicts what, in blocks.

    hidden: what predicts, (n, B, d). rows: of v, that it is made of, (n, R). mean: how, (n, B, R); None where the
    rows are hidden itself. targets: words that may be predicted, (n, H). positive: which of them are, (n, B, H).
    """

    hidden: Tensor
    rows: Tensor
    mean: Tensor | None
    targets: Tensor
    positive: Tensor


def predict(batch: Windows, v: Tensor, cbow: bool) -> Prediction:
    """Return the neighbours by the centre's vector; with `cbow`, the centre by the mean of its neighbours'."""
    centre, around, near = batch
    if not cbow:
        return Prediction(gather(v, centre), centre, None, around, near)
    there = near.sum(-1, keepdim=True)  # (n, B, 1)
    mean = near / there.clamp(min=1)
    own = torch.eye(centre.shape[1], dtype=v.dtype, device=v.device) * there.clamp(max=1)  # (n, B, B)
    return Prediction(mean @ gather(v, around), around, mean, centre, own)


def ascend(
    batch: Windows,
    v: Tensor,
    u: Tensor,
    objective: Objective,
    cbow: bool,
    lr: float,
    generator: torch.Generator,
    damping: tuple[Tensor, Tensor] | None = None,
    told: bool = False,
) -> float:
    """Move v and u, in place, along the objective's gradient; return a pair's loss before, when told, else NaN.

    damping: by which the steps of each word's v (W,) and u (W,) are shortened.
    """
    hidden, rows, mean, targets, positive = predict(batch, v, cbow)
    columns = objective.columns(targets, generator)  # (n, C)
    theirs = gather(u, columns)  # (n, C, d)
    score = hidden @ theirs.mT  # (n, B, C): a window is a band of it
    loss = float("nan")
    if told and positive.any():
        loss = float(objective.loss(score, columns, targets, positive) / positive.sum())
    slope = objective.slope(score, columns, targets, positive)
    by_hidden = slope @ theirs
    by_v = by_hidden if mean is None else mean.mT @ by_hidden
    _add(v, rows, by_v, lr, None if damping is None else damping[0])
    _add(u, columns, slope.mT @ hidden, lr, None if damping is None else damping[1])
    return loss


def gather(table: Tensor, index: Tensor) -> Tensor:
    """Return rows of a table (W, d), (*index, d)."""
    return table.index_select(0, index.reshape(-1)).view(*index.shape, -1)


def _add(table: Tensor, index: Tensor, step: Tensor, lr: float, damping: Tensor | None) -> None:
    if damping is not None:
        step = step * damping[index][..., None]
    table.index_add_(0, index.reshape(-1), step.reshape(-1, step.shape[-1]), alpha=lr)
