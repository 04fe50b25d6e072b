"""When a run ends: all draws made, enough effective ones, no time left, or the user's interrupt."""

import time
from dataclasses import dataclass, field

from inference.mcmc.effective import bulk_ess
from inference.mcmc.store import Store


@dataclass
class Stop:
    """Goals of a run, asked between chunks; `reason` says why it ended before its last draw."""

    target_ess: float | None = None
    timeout: float | None = None
    reason: str = ""
    began: float = field(default_factory=time.monotonic)

    def now(self, store: Store) -> bool:
        """Is a goal reached?"""
        made = sum(x.shape[1] for x in store.x)
        if self.timeout is not None and time.monotonic() - self.began > self.timeout:
            self.reason = f"timeout of {self.timeout:g} s after {made} draws a chain"
            return True
        if self.target_ess is not None and made >= 20:
            x, _ = store.all()
            return bulk_ess(x) >= self.target_ess
        return False

    def interrupted(self, store: Store) -> None:
        """Note that the user stopped the run, and how much is kept."""
        made = sum(x.shape[1] for x in store.x)
        self.reason = f"interrupted; {made} finished draws a chain are kept"
