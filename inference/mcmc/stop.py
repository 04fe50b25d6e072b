"""When a run ends: all draws made, enough effective ones, no time left, or the user's interrupt."""

import time
from dataclasses import dataclass, field

from inference.mcmc.effective import bulk_ess
from inference.mcmc.store import Store

LEAST = 20  # draws a chain before their number is judged
MORE = 1.2  # times as many draws before it is judged again, so that all judgements cost no more than a few


@dataclass
class Stop:
    """Goals of a run, asked between chunks; `reason` says why it ended before its last draw, `message` why it did."""

    target_ess: float | None = None
    timeout: float | None = None
    reason: str = ""
    message: str = ""
    began: float = field(default_factory=time.monotonic)
    judge_at: float = LEAST

    @property
    def asked(self) -> bool:
        """Is there a goal?"""
        return self.target_ess is not None or self.timeout is not None

    @property
    def late(self) -> bool:
        """Is the time over?"""
        return self.timeout is not None and time.monotonic() - self.began > self.timeout

    def now(self, store: Store) -> bool:
        """Is a goal reached?"""
        if self.late and store.made:
            self.reason = f"timeout of {self.timeout:g} s after {store.made} draws a chain"
            return True
        if self.target_ess is not None and store.made >= self.judge_at:
            self.judge_at = MORE * store.made
            found = bulk_ess(store.x())
            if found >= self.target_ess:
                self.message = f"bulk ESS {found:.0f} after {store.made} draws a chain"
                return True
        return False

    def interrupted(self, store: Store) -> None:
        """Note that the user stopped the run, and how much is kept."""
        self.reason = f"interrupted; {store.made} finished draws a chain are kept"
