"""What a run of stochastic gradient MCMC was asked for, and which of its steps are drawn from."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from inference.stochastic_gradient.moves import MOVES
from inference.training.step_sizes import Cyclical, Polynomial

SCHEDULES = ("constant", "decay", "cyclical")
POWER = 1 / 3  # at which a decaying run's estimates come nearest fastest (Teh, Thiery and Vollmer, 2016)
TRAVEL = 0.5  # the share of a cycle whose steps are too large to draw from


@dataclass(frozen=True)
class Plan:
    """All that decides the draws, apart from model and data."""

    seed: int
    kernel: str
    num_samples: int
    num_warmup: int
    num_chains: int
    thinning: int
    batch_size: int | None
    lr: float | None
    friction: float
    temperature: float
    schedule: str
    num_cycles: int
    precondition: bool

    def __post_init__(self) -> None:
        for name in ("num_samples", "num_chains", "thinning", "num_cycles"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; it is {getattr(self, name)}")
        if self.num_warmup < 0 or (self.batch_size is not None and self.batch_size < 1):
            raise ValueError("num_warmup must not be negative, and batch_size at least 1")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be positive and finite; it is {self.lr}")
        if not 0 < self.friction <= 1 or not self.temperature >= 0:
            raise ValueError(
                f"friction lies in (0, 1], temperature is not negative; {self.friction}, {self.temperature}"
            )
        if self.kernel not in MOVES:
            raise ValueError(f"no kernel {self.kernel!r}; there are: {', '.join(MOVES)}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"no schedule {self.schedule!r}; there are: {', '.join(SCHEDULES)}")

    @property
    def cycle(self) -> int:
        """Steps of one cycle: as many draws in each, from its quieter part."""
        per_cycle = math.ceil(self.num_samples / self.num_cycles)
        return math.ceil(per_cycle * self.thinning / (1 - TRAVEL))

    def sizes(self, lr: float) -> Callable[[int], float]:
        """Return the step size as a function of the step, from 1."""
        if self.schedule == "cyclical":
            return Cyclical(lr, self.cycle * self.num_cycles, self.num_cycles)
        if self.schedule == "decay":
            shift = self.num_samples * self.thinning / 10
            return Polynomial(lr * shift**POWER, shift, POWER)
        return lambda t: lr

    def draws_at(self, t: int) -> bool:
        """Is the state after step t, from 1, a draw?"""
        if self.schedule != "cyclical":
            return t % self.thinning == 0
        place = (t - 1) % self.cycle - round(TRAVEL * self.cycle)
        return place >= 0 and (place + 1) % self.thinning == 0

    def heat(self, t: int) -> float:
        """Return the temperature of step t: none on the way to another mode."""
        quiet = self.schedule == "cyclical" and (t - 1) % self.cycle < round(TRAVEL * self.cycle)
        return 0.0 if quiet else self.temperature
