"""Learning rates that are planned: the share of the first rate at every step."""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def constant(step: int) -> float:
    """Return 1 at every step."""
    return 1.0


def warmup_cosine(num_warmup: int, num_steps: int, last: float = 0.0) -> Schedule:
    """A rise over `num_warmup` steps, then half a cosine down to the share `last` at `num_steps`.

    Source: Loshchilov and Hutter (2017), SGDR, equation 5.
    """
    _refuse(num_warmup, num_steps)

    def share(step: int) -> float:
        if step < num_warmup:
            return (step + 1) / num_warmup
        gone = min(1.0, (step - num_warmup) / (num_steps - num_warmup))
        return last + (1 - last) * (1 + math.cos(math.pi * gone)) / 2

    return share


def warmup_linear(num_warmup: int, num_steps: int, last: float = 0.0) -> Schedule:
    """A rise over `num_warmup` steps, then a straight line down to the share `last` at `num_steps`."""
    _refuse(num_warmup, num_steps)

    def share(step: int) -> float:
        if step < num_warmup:
            return (step + 1) / num_warmup
        gone = min(1.0, (step - num_warmup) / (num_steps - num_warmup))
        return 1 - (1 - last) * gone

    return share


def warmup_root(num_warmup: int) -> Schedule:
    """A rise over `num_warmup` steps, then one over the square root of the step, without end.

    Source: Vaswani et al. (2017), equation 3.
    """
    _refuse(num_warmup, math.inf)
    return lambda step: min((step + 1) / max(1, num_warmup), math.sqrt(max(1, num_warmup) / (step + 1)))


def _refuse(num_warmup: int, num_steps: float) -> None:
    if not 0 <= num_warmup < num_steps:
        raise ValueError(f"the rise must be shorter than the run; got {num_warmup} of {num_steps} steps")
