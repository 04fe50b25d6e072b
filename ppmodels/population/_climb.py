"""L-BFGS for many independent concave problems at once, in coordinates in which each is nearly round.

What makes it fast is not here: all problems share one matrix, so that a step of all costs two matrix products.

Source: Nocedal and Wright (2006), algorithms 7.4 and 7.5.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

MEMORY = 10
HALVINGS = 30
ValueAndGrad = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Ascent:
    """Where the climbs ended: x (N, P); value, promised gain `decrement` (N,); steps taken; passes over the data."""

    x: Tensor
    value: Tensor
    decrement: Tensor
    steps: int
    passes: int


def climb(
    evaluate: ValueAndGrad, start: Tensor, factor: Tensor, tol: float, num_steps: int, rounding: float = 1e-15
) -> Ascent:
    """Climb from start (N, P) until every problem promises less than tol nats.

    evaluate: x (N, P) -> values (N,) and gradients (N, P).
    factor: lower Cholesky factors (N, P, P) of about minus the Hessians.
    rounding: relative error of the values.
    """
    x, (value, grad) = start, evaluate(start)
    slope = _whiten(factor, grad)
    pairs: list[tuple[Tensor, Tensor]] = []
    passes, step = 1, 0
    open_ = torch.ones(len(x), dtype=torch.bool, device=x.device)
    for step in range(1, num_steps + 1):
        open_ = open_ & (slope.square().sum(-1) / 2 > tol)
        if not bool(open_.any()):
            step -= 1
            break
        direction = torch.where(open_[:, None], _direction(slope, pairs), 0.0)
        rise = (direction * slope).sum(-1)
        uphill = rise > 0
        direction = torch.where(uphill[:, None], direction, torch.where(open_[:, None], slope, 0.0))
        rise = torch.where(uphill, rise, (direction * slope).sum(-1))
        stride = torch.linalg.solve_triangular(factor.mT, direction[..., None], upper=True)[..., 0]
        length, short = torch.ones_like(value), open_
        for _ in range(HALVINGS):
            new_value, new_grad = evaluate(x + length[:, None] * stride)
            passes += 1
            short = open_ & ~(new_value >= value + 1e-4 * length * rise - rounding * value.abs())
            if not bool(short.any()):
                break
            length = torch.where(short, length / 2, length)
        else:
            open_ = open_ & ~short
            length = torch.where(short, 0.0, length)
            new_value, new_grad = evaluate(x + length[:, None] * stride)
        new_slope = _whiten(factor, new_grad)
        pairs = [*pairs[1 - MEMORY :], (length[:, None] * direction, slope - new_slope)]
        x, value, slope = x + length[:, None] * stride, new_value, new_slope
    return Ascent(x, value, slope.square().sum(-1) / 2, step, passes)


def _direction(slope: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The inverse of minus the Hessian that the last steps imply, times the slope, (N, P)."""
    q, kept = slope, []
    for s, y in reversed(pairs):
        product = (s * y).sum(-1)
        good = product > 1e-12 * y.square().sum(-1)
        rho = torch.where(good, 1 / torch.where(good, product, 1.0), 0.0)
        alpha = rho * (s * q).sum(-1)
        q = q - alpha[:, None] * y
        kept.append((s, y, rho, alpha))
    if kept:
        s, y, rho, _ = kept[0]
        size = y.square().sum(-1)
        q = q * torch.where(rho > 0, 1 / (rho * size.clamp(min=1e-300)), 1.0)[:, None]
    for s, y, rho, alpha in reversed(kept):
        q = q + (alpha - rho * (y * q).sum(-1))[:, None] * s
    return q


def _whiten(factor: Tensor, grad: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(factor, grad[..., None], upper=False)[..., 0]
