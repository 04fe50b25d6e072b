"""Derivatives of higher order: the backward pass is itself a computation, and can be differentiated."""

from collections.abc import Callable, Sequence
from typing import Any

from ppmodels.backprop.dual import jvp
from ppmodels.backprop.tape import Tape, gradient, value_of


def hessian(function: Callable[..., Any], *point: float) -> list[list[float]]:
    """Return the matrix of second derivatives by one recorded backward pass and then one for each input."""
    return derivatives(function, 2, *point)


def hessian_vector(function: Callable[..., Any], point: Sequence[float], vector: Sequence[float]) -> list[float]:
    """Return H vector for a fixed number of times the cost of the function: reverse mode over forward mode.

    Source: Pearlmutter (1994), Neural Computation 6.
    """
    inputs = Tape().variables(*point)
    _, slope = jvp(function, inputs, [float(v) for v in vector])
    return gradient(slope, inputs)


def derivatives(function: Callable[..., Any], order: int, *point: float) -> Any:
    """Return all derivatives of this order, as a list nested that deep.

    A function of n inputs and m operations: n^(order - 1) backward passes of O(m) each.

    Raises: ValueError when order is below 1.
    """
    if order < 1:
        raise ValueError(f"order must be at least 1; it is {order}")
    inputs = Tape().variables(*point)
    entries: Any = function(*inputs)
    for passed in range(1, order + 1):
        entries = _each(entries, lambda entry, last=passed == order: gradient(entry, inputs, record=not last))
    return _each(entries, value_of)


def _each(nested: Any, function: Callable[[Any], Any]) -> Any:
    """Apply to every entry of nested lists."""
    return [_each(entry, function) for entry in nested] if isinstance(nested, list) else function(nested)
