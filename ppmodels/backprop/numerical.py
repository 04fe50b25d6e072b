"""Numerical differences: no rule needed, and never better than half the digits, or two thirds."""

from collections.abc import Callable, Sequence
from typing import Any


def forward_difference(function: Callable[..., Any], point: Sequence[float], step: float = 1e-8) -> list[float]:
    """Return (f(x + h e_i) - f(x)) / h for each i: error O(h), and rounding 1e-16 / h; best near 1e-8."""
    start = function(*point)
    return [(function(*_moved(point, i, step)) - start) / step for i in range(len(point))]


def central_difference(function: Callable[..., Any], point: Sequence[float], step: float = 1e-5) -> list[float]:
    """Return (f(x + h e_i) - f(x - h e_i)) / 2h for each i: error O(h^2); best near 1e-5."""
    return [
        (function(*_moved(point, i, step)) - function(*_moved(point, i, -step))) / (2 * step) for i in range(len(point))
    ]


def _moved(point: Sequence[float], i: int, step: float) -> list[float]:
    return [x + step if i == j else x for j, x in enumerate(point)]
