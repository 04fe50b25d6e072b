"""Ends of profile-likelihood intervals, all data sets and both sides at once."""

import torch
from torch import Tensor
from torch.func import vmap

from ppmodels.parametric._newton import Objective, ascend, curvature_of
from ppmodels.parametric.family import Family
from ppmodels.parametric.sample import log_likelihood


def profile(family: Family, theta: Tensor, target: Tensor, rows: tuple[Tensor, ...]) -> Tensor:
    """Return where each parameter's profile crosses target (B,), (B, P, 2), of maxima theta (B, P).

    The search is over real coordinates, which the likelihood does not notice.
    """
    peak = family.unconstrain(theta)

    def objective(eta: Tensor, *rows: Tensor) -> Tensor:
        return log_likelihood(family, family.constrain(eta), *rows)

    curvature = -vmap(curvature_of(objective))(peak, *rows)
    step = torch.linalg.inv(curvature).diagonal(dim1=-2, dim2=-1).sqrt()  # (B, P)
    ends = []
    for held in range(theta.shape[1]):
        sides = [_crossing(family, objective, peak, side * step[:, held], target, rows, held) for side in (-1, 1)]
        ends.append(torch.stack(sides, -1))
    return torch.stack(ends, 1)


def _crossing(
    family: Family,
    objective: Objective,
    peak: Tensor,
    step: Tensor,
    target: Tensor,
    rows: tuple[Tensor, ...],
    held: int,
) -> Tensor:
    """One end, (B,): first go out by steps until the profile is below the target, then halve."""

    def height(distance: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        start = start.clone()
        start[:, held] = peak[:, held] + step.sign() * distance
        if start.shape[1] == 1:
            return vmap(objective)(start, *rows), start
        point, value, _ = ascend(objective, start, rows, held=held)
        return value, point

    inner, outer, point = torch.zeros_like(target), 2 * step.abs(), peak
    for _ in range(60):
        value, point = height(outer, point)
        short = value > target
        if not bool(short.any()):
            break
        inner, outer = torch.where(short, outer, inner), torch.where(short, 1.5 * outer, outer)
    for _ in range(48):
        middle = (inner + outer) / 2
        value, point = height(middle, point)
        above = value > target
        inner, outer = torch.where(above, middle, inner), torch.where(above, outer, middle)
        if bool((outer - inner <= 1e-11 * (1 + outer)).all()):
            break
    point = point.clone()
    point[:, held] = peak[:, held] + step.sign() * (inner + outer) / 2
    return family.constrain(point)[:, held]
