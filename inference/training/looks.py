"""An exact objective beside an estimated one: looked at now and then, as it costs a pass over all rows."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Looks:
    """What `measure` returns at the start, and at every look of the training whose callback `take` is."""

    measure: Callable[[], float]
    values: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.values.append(self.measure())

    def take(self, step: int, objective: float) -> None:
        """Look once more."""
        self.values.append(self.measure())
