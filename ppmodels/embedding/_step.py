"""One step: the scores of a few hundred words against their neighbours and against noise, and the way up."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from ppmodels.embedding._layer import backward, forward
from ppmodels.embedding._objective import Columns, Objective, Scores
from ppmodels.embedding.windows import Windows


class Scratch:
    """Memory that every step writes to anew: fresh memory of such a size costs more than what is written to it."""

    def __init__(self) -> None:
        self.held: dict[str, Tensor] = {}

    def gather(self, name: str, table: Tensor, index: Tensor) -> Tensor:
        """Return rows of a table (W, d), (*index, d), until the name is used again."""
        found = self._room(name, table, (index.numel(), table.shape[1]))
        return torch.index_select(table, 0, index.reshape(-1), out=found).view(*index.shape, table.shape[1])

    def product(self, name: str, a: Tensor, b: Tensor) -> Tensor:
        """Return a @ b, of (n, B, K) and (n, K, d), until the name is used again."""
        return torch.bmm(a, b, out=self._room(name, a, (*a.shape[:2], b.shape[-1])))

    def _room(self, name: str, like: Tensor, shape: tuple[int, ...]) -> Tensor:
        size, held = math.prod(shape), self.held.get(name)
        if held is None or held.numel() < size:
            held = self.held[name] = like.new_empty(size)
        return held[:size].view(shape)


class Prediction(NamedTuple):
    """What predicts what, in n blocks of B.

    rows: of v, that predict, (n, R). mean: how a row of a block is made of them, (n, B, R); None where they are it.
    targets: words that may be predicted, (n, H). positive: which of them are, (n, H, B). columns: rows of u that the
    scores are against, (n, C). damping: by which the steps of rows (n, R) and of columns (n, C) are shortened.
    """

    rows: Tensor
    mean: Tensor | None
    targets: Tensor
    positive: Tensor
    columns: Columns
    damping: tuple[Tensor | None, Tensor | None] = (None, None)

    @classmethod
    def of(cls, windows: Windows, objective: Objective, cbow: bool, generator: torch.Generator) -> "Prediction":
        """Return the neighbours by the centre, or the centre by each; with `cbow`, by the mean of its neighbours."""
        centre, around, near = windows
        rows, mean, targets, positive = around, None, centre, near
        if cbow:
            there = near.sum(-1, keepdim=True)  # (n, B, 1)
            mean = near / there.clamp(min=1)
            positive = torch.eye(centre.shape[1], dtype=near.dtype, device=near.device) * there.clamp(max=1)
        elif not objective.inward:
            rows, targets, positive = centre, around, near.mT.contiguous()
        if objective.inward:
            targets, positive = pad(targets, (0, 1)), pad(positive, (0, 0, 0, 1))
        return cls(rows, mean, targets, positive, objective.columns(targets, generator))

    def damped(self, v: Tensor | None, u: Tensor | None) -> "Prediction":
        """Return the same with the steps of rows of v and of u shortened by what is given for each, (W,)."""
        damping = None if v is None else v[self.rows], None if u is None else u[self.columns.rows]
        return self._replace(damping=damping)

    def split(self, size: int) -> Iterator["Prediction"]:
        """Yield them, so many blocks at once."""
        for start in range(0, len(self.rows), size):
            yield self.take(slice(start, start + size))

    def take(self, blocks: slice) -> "Prediction":
        """Return some of the blocks."""
        mean, by_rows, by_columns = (None if part is None else part[blocks] for part in (self.mean, *self.damping))
        columns = self.columns.take(blocks)
        damping = by_rows, None if by_columns is None else by_columns[:, : columns.rows.shape[1]]
        return Prediction(self.rows[blocks], mean, self.targets[blocks], self.positive[blocks], columns, damping)

    def predicting(self, v: Tensor, scratch: Scratch) -> Tensor:
        """Return words' vectors, or the means of them, (n, B, d)."""
        found = scratch.gather("rows", v, self.rows)
        return found if self.mean is None else scratch.product("hidden", self.mean, found)


class Damping(NamedTuple):
    """By which the steps of u's last S rows, (S,), and of a layer, are shortened."""

    shared: Tensor | None = None
    layer: float = 1.0


def ascend(
    batch: Prediction,
    v: Tensor,
    u: Tensor,
    objective: Objective,
    lr: float,
    damping: Damping = Damping(),  # noqa: B008
    told: bool = False,
    scratch: Scratch | None = None,
    layered: bool = False,
) -> float:
    """Move v and u, in place, along the objective's gradient; return a pair's loss before, when told, else NaN.

    scratch: of the steps before. layered: the last rows of v are a layer's.
    """
    scratch, targets, positive, columns = scratch or Scratch(), batch.targets, batch.positive, batch.columns
    mean, theirs = batch.predicting(v, scratch), scratch.gather("columns", u, columns.rows)
    shared, layer = u[len(u) - objective.shared :], v[len(v) - v.shape[1] - 1 :]
    hidden = forward(mean, layer) if layered else mean
    own = scratch.product("own", theirs, hidden.mT)  # (n, C, B): a window is a band of it
    scores = Scores(own, hidden @ shared.mT)
    loss = float("nan")
    if told and positive.any():
        loss = float(objective.loss(scores, columns, targets, positive) / positive.sum())
    slope = objective.slope(scores, columns, targets, positive)
    by_hidden = scratch.product("by hidden", slope.own.mT, theirs)
    slope.own.mul_(_steps(lr, batch.damping[1]))  # cheaper than the steps of whole rows
    by_u = scratch.product("by columns", slope.own, hidden)
    if len(shared):
        flat = slope.shared.flatten(0, 1)
        by_hidden.flatten(0, 1).addmm_(flat, shared)
        step = flat.mT @ hidden.flatten(0, 1)  # (S, d)
        shared.add_(step if damping.shared is None else step.mul_(damping.shared[:, None]), alpha=lr)
    if layered:
        by_hidden, by_layer = backward(mean, hidden, by_hidden, layer)
        layer.add_(by_layer, alpha=lr * damping.layer)
    by_rows = by_hidden if batch.mean is None else scratch.product("by rows", batch.mean.mT, by_hidden)
    _add(v, batch.rows, by_rows.mul_(_steps(lr, batch.damping[0])))
    _add(u, columns.rows, by_u)
    return loss


def _steps(lr: float, damping: Tensor | None) -> Tensor | float:
    return lr if damping is None else lr * damping[..., None]


def _add(table: Tensor, index: Tensor, step: Tensor) -> None:
    step = step.reshape(-1, step.shape[-1])
    table.scatter_add_(0, index.reshape(-1, 1).expand_as(step), step)  # a third of index_add_'s time
