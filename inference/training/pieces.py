"""One optimiser's run over rows that come in pieces: each is looked at for a few steps, and forgotten."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inference.training.average import write
from inference.training.checkpoint import Checkpoint
from inference.training.loop import Training
from ppmodels.base import Data

SLOW = 100  # steps after which the learning rate has begun to fall
LATER = 3.0  # how much more later ends weigh in the average; 0 weighs all alike
KIND = "parameter "  # of what a checkpoint holds


@dataclass
class Pieces:
    r"""The steps so far, all that the next ones need, and how many rows there have been.

    .. math:: \log p(\theta) + \frac{N}{n} \sum_{i \in \text{piece}} \log p(x_i \mid \theta)

    is what a step on a piece of n rows climbs. N: `rows` in all, or where that is None as many as have come so far.
    batch_steps: on each piece. lr: of the first steps; it falls as the root of their number. average: of the places
    where the pieces ended, later ones weighing more, so that what the last piece alone says dies out.
    Source: Shamir and Zhang (2013), Stochastic gradient descent for non-smooth optimization, equation 6.
    """

    batch_steps: int
    lr: float
    rows: int | None = None
    seed: int = 0
    seen: int = 0
    state: Any = field(default=None, repr=False)
    average: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.batch_steps < 1 or not self.lr > 0 or (self.rows is not None and self.rows < 1):
            raise ValueError("batch_steps, lr and rows must be positive")

    def take(self, data: Data) -> Data:
        """Return the piece as some rows of all; it counts as seen after `descend`."""
        here = _length(data)
        return replace(data, rows=max(self.rows or self.seen + here, here), index=torch.arange(here))

    def descend(
        self, piece: Data, loss: Callable[[Tensor | None], Tensor], parameters: Callable[[], Mapping[str, Tensor]],
        buffers: Any = None,
    ) -> None:  # fmt: skip
        """Take the next steps, on the loss of a piece."""
        memory = _Memory(Path(), {}, state=self.state)
        Training(
            self.steps + self.batch_steps, self.lr, seed=self.seed, window=self.batch_steps, checkpoint=memory,
            schedule=lambda step: (1 + step / SLOW) ** -0.5,
        ).run(loss, parameters, buffers)  # fmt: skip
        self.state, self.seen = memory.state, self.seen + _length(piece)
        ends = {n.removeprefix(KIND): value for n, value in self.state[0].items() if n.startswith(KIND)}
        share = (LATER + 1) / (self.steps / self.batch_steps + LATER)
        self.average = {n: v.lerp(self.average.get(n, v), 1 - share) for n, v in ends.items()}

    @property
    def steps(self) -> int:
        """How many there have been."""
        return 0 if self.state is None else len(self.state[0]["objective"])

    def recall(self, loss: Callable[[Tensor | None], Tensor], parameters: Callable[[], Mapping[str, Tensor]]) -> None:
        """Set parameters, which the loss makes, to the average."""
        with torch.no_grad():
            loss(None)
        write(parameters(), self.average)


def _length(data: Data) -> int:
    return len(next(iter({**data.observed, **data.given}.values())))


@dataclass
class _Memory(Checkpoint):
    """A checkpoint that is kept, not written."""

    state: Any = None

    def load(self) -> Any:
        return self.state

    def due(self) -> bool:
        return False

    def save(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self.state = {name: value.detach().clone() for name, value in tensors.items()}, facts
