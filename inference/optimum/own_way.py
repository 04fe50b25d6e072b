"""The mode of a model that has a way of its own to it."""

import time
from typing import Any

from torch import Tensor

from inference.base import check_data
from ppmodels.base import HasPeak, Peak


def peak(model: Any, args: Any, kwargs: Any, *, curvature: bool = False) -> Peak | None:
    """Return what the model knows of its only mode; None where it knows none."""
    if not isinstance(model, HasPeak):
        return None
    check_data(model, args, kwargs)
    return model.peak(args[0], curvature)


def point(found: Peak) -> dict[str, Tensor]:
    """Return the mode as one draw of one chain."""
    return {name: value[None, None] for name, value in found.theta.items()}


def report(found: Peak, tol: float, seed: int, began: float) -> dict[str, Any]:
    """Return what a fit says of how the mode was found."""
    done = found.decrement <= max(tol, 1e-8 * (1 + abs(found.log_density)))
    said = f"the model's own way to its only mode, {found.steps} steps"
    message = said if done else f"the log density may still gain {found.decrement:.3g} after {found.steps} steps"
    info: dict[str, Any] = {"seed": seed, "converged": done, "message": message, "tol": tol}
    info |= {"log_density": found.log_density, "decrement": found.decrement, "num_steps": found.steps}
    return info | {"num_modes": 1, "seconds": time.perf_counter() - began}
