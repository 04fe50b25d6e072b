"""Semirings: two operations that distribute, so that a sum over paths visits each edge only once."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Semiring(Generic[T]):
    """Two associative operations, add commutative and multiply distributing over it, and what is neutral."""

    add: Callable[[T, T], T]
    multiply: Callable[[T, T], T]
    zero: T
    one: T


def _larger(a: tuple[float, tuple[Any, ...]], b: tuple[float, tuple[Any, ...]]) -> Any:
    return a if a[0] >= b[0] else b


SUM_PRODUCT: Semiring[float] = Semiring(lambda a, b: a + b, lambda a, b: a * b, 0.0, 1.0)
"""Ordinary backpropagation."""

COUNT: Semiring[int] = Semiring(lambda a, b: a + b, lambda a, b: a * b, 0, 1)
"""How many paths there are, when every edge is 1."""

MAX_PRODUCT: Semiring[Any] = Semiring(_larger, lambda a, b: (a[0] * b[0], a[1] + b[1]), (0.0, ()), (1.0, ()))
"""The path that carries most of the gradient: of pairs (weight >= 0, path)."""

ENTROPY: Semiring[tuple[float, float]] = Semiring(
    lambda a, b: (a[0] + b[0], a[1] + b[1]),
    lambda a, b: (a[0] * b[0], a[0] * b[1] + a[1] * b[0]),
    (0.0, 0.0),
    (1.0, 0.0),
)
"""Of pairs (w, w log w): how evenly the gradient spreads over the paths. Source: Eisner (2002), ACL."""


def top_path(graph: Any, source: Any, target: Any) -> tuple[float, tuple[Any, ...]]:
    """Return the largest |product of edges| over all paths, and the edges of that path."""
    return graph.sum_over_paths(source, target, MAX_PRODUCT, lambda edge: (abs(edge.weight), (edge,)))


def path_entropy(graph: Any, source: Any, target: Any) -> float:
    r"""Return the entropy, in nats, of paths weighted by their |product of edges|; 0 for one or none.

    .. math:: H = \log Z - \tfrac1Z \sum_p |w_p| \log |w_p|, \qquad Z = \sum_p |w_p|
    """
    total, plogp = graph.sum_over_paths(source, target, ENTROPY, _surprise)
    return math.log(total) - plogp / total if total > 0 else 0.0


def _surprise(edge: Any) -> tuple[float, float]:
    weight = abs(edge.weight)
    return weight, weight * math.log(weight) if weight > 0 else 0.0
