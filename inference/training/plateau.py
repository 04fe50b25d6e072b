"""When an ascent on a noisy objective has arrived, and how its steps shrink on the way."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

RATES = tuple(10 ** (-0.5 * k) for k in range(5))  # shares of the first learning rate


@dataclass
class Plateau:
    """Halt the climb in stages: a stage whose objective stands still hands over to a smaller learning rate.

    The objective is averaged over windows of steps, m_k with standard error s_k. A window has gained when
    m_k - m_ref > max(2 sqrt(s_k^2 + s_ref^2), tol (1 + |m_k|)), where ref is the last window that had
    gained; slow gains thus add up until they stand out from the noise. After `patience` windows in a row
    without a gain the learning rate falls by sqrt(10); after the last of five rates the ascent has converged.

    tol: a relative gain that is none. patience: windows. windows: (mean, standard error) of each so far.
    """

    tol: float
    patience: int
    stage: int = 0
    idle: int = 0
    reference: tuple[float, float] = (-math.inf, 0.0)
    windows: list[tuple[float, float]] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """The share of the first learning rate to go on with."""
        return RATES[min(self.stage, len(RATES) - 1)]

    @property
    def converged(self) -> bool:
        """Has the objective stood still at every rate?"""
        return self.stage >= len(RATES)

    def update(self, values: Sequence[float]) -> None:
        """Take in the objective at every step of one more window."""
        n = len(values)
        mean = math.fsum(values) / n
        error = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / max(1, n - 1) / n)
        self.windows.append((mean, error))
        noise = 2 * math.hypot(error, self.reference[1])
        if mean - self.reference[0] > max(noise, self.tol * (1 + abs(mean))):
            self.reference, self.idle = (mean, error), 0
            return
        self.idle += 1
        if self.idle >= self.patience:
            self.stage, self.idle = self.stage + 1, 0

    def message(self) -> str:
        """How it ended, in one line."""
        if self.converged:
            return "converged"
        if not self.windows:
            return "not converged: no window of steps was completed; raise num_steps"
        gain = self.windows[-1][0] - self.windows[-2][0] if len(self.windows) > 1 else math.inf
        stage = f"at rate {self.stage + 1} of {len(RATES)}"
        return f"not converged {stage}; the last window gained {gain:.3g} nats; raise num_steps"

    def state(self) -> dict[str, Any]:
        """What a resumed run needs, as JSON takes it."""
        return {
            "stage": self.stage,
            "idle": self.idle,
            "reference": list(self.reference),
            "windows": [list(window) for window in self.windows],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from an earlier run's state."""
        self.stage, self.idle = state["stage"], state["idle"]
        self.reference = tuple(state["reference"])
        self.windows = [tuple(window) for window in state["windows"]]
