"""One step: the scores of a few hundred words against their neighbours and against noise, and the way up."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ppmodels.embedding._objective import Objective
from ppmodels.embedding.windows import Windows


class Prediction(NamedTuple):
    """What predicts what, in n blocks of B.

    rows: of v, that predict, (n, R). mean: how a row of a block is made of them, (n, B, R); None where they are it.
    targets: words that may be predicted, (n, H). positive: which of them are, (n, B, H). columns: rows of u that the
    scores are against, (n, C).
    """

    rows: Tensor
    mean: Tensor | None
    targets: Tensor
    positive: Tensor
    columns: Tensor

    @classmethod
    def of(cls, windows: Windows, objective: Objective, cbow: bool, generator: torch.Generator) -> "Prediction":
        """Return the neighbours by the centre; with `cbow`, the centre by the mean of its neighbours."""
        centre, around, near = windows
        if not cbow:
            return cls(centre, None, around, near, objective.columns(around, generator))
        there = near.sum(-1, keepdim=True)  # (n, B, 1)
        own = torch.eye(centre.shape[1], dtype=near.dtype, device=near.device) * there.clamp(max=1)  # (n, B, B)
        return cls(around, near / there.clamp(min=1), centre, own, objective.columns(centre, generator))

    def split(self, size: int) -> Iterator["Prediction"]:
        """Yield them, so many blocks at once."""
        for start in range(0, len(self.rows), size):
            part = slice(start, start + size)
            mean = None if self.mean is None else self.mean[part]
            yield Prediction(self.rows[part], mean, self.targets[part], self.positive[part], self.columns[part])

    def hidden(self, v: Tensor) -> Tensor:
        """Return what predicts, (n, B, d)."""
        found = gather(v, self.rows)
        return found if self.mean is None else self.mean @ found


def ascend(
    batch: Prediction,
    v: Tensor,
    u: Tensor,
    objective: Objective,
    lr: float,
    damping: tuple[Tensor, Tensor] | None = None,
    told: bool = False,
) -> float:
    """Move v and u, in place, along the objective's gradient; return a pair's loss before, when told, else NaN.

    damping: by which the steps of each row of v (W,) and of u are shortened.
    """
    rows, mean, targets, positive, columns = batch
    hidden, theirs = batch.hidden(v), gather(u, columns)  # (n, B, d), (n, C, d)
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
    step = step.mul_(lr if damping is None else lr * damping[index][..., None]).reshape(-1, step.shape[-1])
    table.scatter_add_(0, index.reshape(-1, 1).expand_as(step), step)  # a third of index_add_'s time
