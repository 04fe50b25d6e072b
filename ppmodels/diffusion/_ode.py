"""Dormand and Prince's adaptive Runge-Kutta method of order 5 (4)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


class Solution(NamedTuple):
    """Where the ODE leads, and how often its right-hand side was asked."""

    x: Tensor
    evaluations: int


def integrate(
    field: Callable[[Tensor, float], Tensor],
    x: Tensor,
    start: float,
    end: float,
    *,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    max_steps: int = 10_000,
) -> Solution:
    """Follow dx / dt = field(x, t) from start to end, which may lie before it; the worst row sets the step.

    Raises: RuntimeError when max_steps do not reach the end.
    """
    t, span = start, end - start
    first = field(x, t)
    step, evaluations = span / 100, 1
    for _ in range(max_steps):
        step = min(step, end - t, key=abs)
        slopes, point = [first], x
        for row in STAGES:
            point = x + step * _sum(row, slopes)
            slopes.append(field(point, t + step * _time(row)))
        evaluations += len(STAGES)
        scale = atol + rtol * torch.maximum(x.abs(), point.abs())
        miss = (step * _sum(ERROR, slopes) / scale).flatten(1).square().mean(-1).max().sqrt()
        error = float(miss)
        if error <= 1:
            x, t, first = point, t + step, slopes[-1]
            if t == end or abs(end - t) < 1e-12 * abs(span):
                return Solution(x, evaluations)
        step *= min(5.0, max(0.2, 0.9 * max(error, 1e-10) ** -0.2)) if error == error else 0.2
    raise RuntimeError(f"the ODE did not reach {end} in {max_steps} steps; it stood at {t:.4g}")


def _time(row: tuple[float, ...]) -> float:
    return sum(row)


def _sum(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    total = weights[0] * slopes[0]
    for weight, slope in zip(weights[1:], slopes[1:], strict=True):
        total = total + weight * slope
    return total
