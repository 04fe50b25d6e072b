"""A model's own coordinate ascent: independent laws of its blocks, each in closed form, from several starts."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ppmodels.base import Data, HasBlocks, Theta


@dataclass(frozen=True)
class Climb:
    """The evidence bound after each step, whether it stood still, and what draws from the blocks' laws."""

    bounds: list[float]
    converged: bool
    draw: Callable[[int], Theta]


def climb(
    model: HasBlocks, data: Data, *, num_restarts: int, num_steps: int, tol: float, show: Callable[[int, float], object]
) -> tuple[Climb, list[float]]:
    """Return the climb to the highest bound, and where every one ended; all constants are in these bounds.

    tol: a step gains nothing when the bound rises by less than tol (1 + |bound|).
    """
    climbs: list[Climb] = []
    for _ in range(num_restarts):
        bounds: list[float] = []
        for bound, draw in model.ascend(data):
            bounds.append(bound)
            done = len(bounds) > 1 and bounds[-1] - bounds[-2] <= tol * (1 + abs(bound))
            if done or len(bounds) == num_steps:
                climbs.append(Climb(bounds, done, draw))
                break
        show(len(bounds), bounds[-1])
    ends = [each.bounds[-1] for each in climbs]
    return climbs[max(range(len(ends)), key=ends.__getitem__)], ends


def drawn(found: Climb, number: int) -> dict[str, Tensor]:
    """Return independent draws as chain 1, in the data's precision."""
    like = torch.get_default_dtype()
    return {n: (v.to(like) if v.is_floating_point() else v)[None] for n, v in found.draw(number).items()}
