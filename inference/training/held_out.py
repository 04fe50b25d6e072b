"""When to stop learning: once rows that were held out no longer gain; and the weights where they gained most."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class HeldOut:
    """The loss of rows that are not trained on, looked at after every window of steps.

    loss: a function without arguments; its random numbers are the same at every look, so that two looks can be
        compared. patience: windows without a new best after which the run ends.
    objective: minus the loss at every look. best: the parameters at the highest, by name.
    """

    loss: Callable[[], Tensor | float]
    patience: int = 10
    seed: int = 0
    objective: list[float] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict, repr=False)
    idle: int = 0

    @property
    def stopped(self) -> bool:
        """Has patience run out?"""
        return self.idle >= self.patience

    def measure(self) -> float:
        """Return minus the loss now; no random state is moved.

        Raises: FloatingPointError when it is not a number.
        """
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(self.seed)
            value = -float(self.loss())
        if math.isnan(value):
            raise FloatingPointError("the held-out loss is nan; look at the rows held out")
        return value

    def take(self, value: float, parameters: Mapping[str, Tensor]) -> None:
        """Take in one more look."""
        if not self.objective or value > max(self.objective):
            self.best = {name: tensor.detach().clone() for name, tensor in parameters.items()}
            self.idle = 0
        else:
            self.idle += 1
        self.objective.append(value)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs beside `best`, as JSON takes it."""
        return {"objective": [value.hex() for value in self.objective], "idle": self.idle}

    def restore(self, state: Mapping[str, Any], best: Mapping[str, Tensor]) -> None:
        """Go on from an earlier run's state."""
        self.objective = [float.fromhex(value) for value in state["objective"]]
        self.idle, self.best = state["idle"], dict(best)
