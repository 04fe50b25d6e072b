"""Newton's ascent of many small concave problems at once, each with its own step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import grad_and_value, jacrev, vmap

Objective = Callable[..., Tensor]


def ascend(
    objective: Objective, start: Tensor, rows: tuple[Any, ...], held: int | None = None, num_steps: int = 100
) -> tuple[Tensor, Tensor, Tensor]:
    """Return argmaxima (B, P), maxima (B,), and which were reached (B,), of objective(point (P,), *rows of set b).

    held: a coordinate that stays as it starts.
    """
    slope, curvature = vmap(grad_and_value(objective)), vmap(curvature_of(objective))
    value_at, point = vmap(objective), start.clone()
    tol = torch.finfo(start.dtype).eps
    free = torch.ones_like(point[0])
    if held is not None:
        free[held] = 0
    done = torch.zeros_like(point[:, 0], dtype=torch.bool)
    gradient, value = slope(point, *rows)
    for _ in range(num_steps):
        step = _direction(gradient * free, curvature(point, *rows), free)
        gain = (gradient * step).sum(-1)
        done = gain <= 16 * tol * (1 + value.abs())
        if bool(done.all()):
            break
        step = torch.where(done[:, None], step.new_zeros(()), step)
        worse = torch.zeros_like(done)
        for _ in range(40):
            new = value_at(point + step, *rows)
            worse = ~(new >= value - 4 * tol * value.abs()) & ~done
            if not bool(worse.any()):
                break
            step = torch.where(worse[:, None], step / 2, step)
        point = point + torch.where(worse[:, None], step.new_zeros(()), step)
        gradient, value = slope(point, *rows)
    return point, value, done


def curvature_of(function: Objective) -> Objective:
    """Return the second derivative by its first argument; twice in reverse, as not all of torch runs forward."""
    return jacrev(jacrev(function))


def _direction(gradient: Tensor, curvature: Tensor, free: Tensor) -> Tensor:
    """Newton's step, (B, P), with the curvature's size where its sign is wrong; never longer than 5 an axis."""
    both = free[:, None] * free
    masked = -curvature * both + torch.diag(1 - free)
    values, axes = torch.linalg.eigh(masked)
    size = values.abs().clamp(min=1e-10 * float(values.abs().max().clamp(min=1e-300)))
    step = (axes @ ((axes.mT @ gradient[..., None]) / size[..., None]))[..., 0]
    return step.clamp(-5, 5)
