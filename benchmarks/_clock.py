"""How long something takes: processor seconds of this process, which a shared machine disturbs little."""

import math
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def timed(run: Callable[[], T], runs: int = 1, limit: float = math.inf) -> tuple[float, T]:
    """The least of up to so many runs, fewer where they pass `limit` seconds together, and what the last returned."""
    seconds: list[float] = []
    while True:
        start = time.process_time()
        found = run()
        seconds.append(time.process_time() - start)
        if len(seconds) >= runs or sum(seconds) >= limit:
            return min(seconds), found


def fastest(run: Callable[[], object], runs: int) -> float:
    """The least of so many runs, in seconds."""
    return timed(run, runs)[0]


def milliseconds(run: Callable[[], object], runs: int) -> float:
    """The least of so many runs after one that warms up, in milliseconds."""
    run()
    return 1e3 * fastest(run, runs)
