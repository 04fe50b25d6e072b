"""Forward mode: dual numbers carry a value and its derivative along one direction."""

from collections.abc import Callable, Sequence
from typing import Any

from ppmodels.backprop.operations import Liftable, Operation, add, multiply


class Dual(Liftable):
    """value + tangent * epsilon, with epsilon^2 = 0.

    Both may be floats, or nodes of a tape: then the derivative along a direction can be differentiated again.
    """

    level = 2
    __slots__ = ("tangent", "value")

    def __init__(self, value: Any, tangent: Any) -> None:
        if isinstance(value, Dual) or isinstance(tangent, Dual):
            raise ValueError("dual numbers are not nested; use a tape for higher orders")
        self.value, self.tangent = value, tangent

    def lift(self, operation: Operation, arguments: Sequence[Any]) -> "Dual":
        """Compute value and tangent together."""
        values = [a.value if isinstance(a, Dual) else a for a in arguments]
        value, tangent = operation(*values), None
        for i, argument in enumerate(arguments):
            if isinstance(argument, Dual):
                share = multiply(operation.partial(i, values, value), argument.tangent)
                tangent = share if tangent is None else add(tangent, share)
        return Dual(value, tangent)


def jvp(function: Callable[..., Any], point: Sequence[Any], direction: Sequence[Any]) -> tuple[Any, Any]:
    """Return function(*point) and J direction, in one forward pass; lists for a list."""
    if len(point) != len(direction):
        raise ValueError(f"a direction needs one entry an input: {len(direction)} for {len(point)}")
    out = function(*(Dual(x, v) for x, v in zip(point, direction, strict=True)))
    if isinstance(out, (list, tuple)):
        return [_value(o) for o in out], [_tangent(o) for o in out]
    return _value(out), _tangent(out)


def forward_gradient(function: Callable[..., Any], *point: float) -> list[float]:
    """Return the gradient by one forward pass an input: its cost grows with their number."""
    return [jvp(function, point, [float(i == j) for j in range(len(point))])[1] for i in range(len(point))]


def _value(x: Any) -> Any:
    return x.value if isinstance(x, Dual) else x


def _tangent(x: Any) -> Any:
    return x.tangent if isinstance(x, Dual) else 0.0
