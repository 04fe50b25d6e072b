"""The operations: for each its value, its partial derivatives, and what it costs. All is built on this table.

A partial derivative is written with operations again. So the same line gives a number when its arguments are
numbers, a node when they are nodes (to be differentiated once more), and a formula when they are symbols.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Operation:
    """An elementary function of one or more numbers.

    value: the function, of floats.
    partial: (i, arguments, z) -> dz/d argument i, for z = value(*arguments).
    cost: number of arguments -> arithmetic operations that one evaluation takes; a change of sign is free.
    """

    name: str
    value: Callable[..., float]
    partial: Callable[[int, Sequence[Any], Any], Any]
    cost: Callable[[int], int]

    def __call__(self, *arguments: Any) -> Any:
        """Evaluate; arguments that are no plain numbers say themselves what that means.

        Raises: ValueError where the function is undefined or overflows.
        """
        lifted = [a for a in arguments if isinstance(a, Liftable)]
        if lifted:
            return max(lifted, key=lambda a: a.level).lift(self, arguments)
        for counter in _counters:
            counter.operations += self.cost(len(arguments))
        try:
            return self.value(*arguments)
        except (ValueError, ArithmeticError):
            raise ValueError(f"{self.name}({', '.join(f'{a:g}' for a in arguments)}) is undefined") from None


class Liftable:
    """What operations can be applied to beside floats: it decides itself what an operation does to it."""

    level = 0  # where kinds meet, the highest takes the others in
    __slots__ = ()

    def lift(self, operation: Operation, arguments: Sequence[Any]) -> Any:
        """Apply the operation to these arguments, of which at least one is of this kind."""
        raise NotImplementedError

    def __add__(self, other: Any) -> Any:
        return add(self, other)

    def __radd__(self, other: Any) -> Any:
        return add(other, self)

    def __sub__(self, other: Any) -> Any:
        return subtract(self, other)

    def __rsub__(self, other: Any) -> Any:
        return subtract(other, self)

    def __mul__(self, other: Any) -> Any:
        return multiply(self, other)

    def __rmul__(self, other: Any) -> Any:
        return multiply(other, self)

    def __truediv__(self, other: Any) -> Any:
        return divide(self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return divide(other, self)

    def __pow__(self, other: Any) -> Any:
        return power(self, other)

    def __rpow__(self, other: Any) -> Any:
        return power(other, self)

    def __neg__(self) -> Any:
        return negate(self)


@dataclass
class Counter:
    """How many arithmetic operations on floats were done."""

    operations: int = 0


@contextmanager
def counting() -> Iterator[Counter]:
    """Count the arithmetic operations done inside."""
    counter = Counter()
    _counters.append(counter)
    try:
        yield counter
    finally:
        _counters.remove(counter)


_counters: list[Counter] = []


def _one(_: int) -> int:
    return 1


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _logsumexp(*x: float) -> float:
    largest = max(x)
    return largest + math.log(math.fsum(math.exp(v - largest) for v in x))


def _dot(*x: float) -> float:
    half = len(x) // 2
    return math.fsum(a * b for a, b in zip(x[:half], x[half:], strict=True))


def _power_partial(i: int, a: Sequence[Any], z: Any) -> Any:
    return a[1] * power(a[0], a[1] - 1) if i == 0 else z * log(a[0])


add = Operation("add", lambda x, y: x + y, lambda i, a, z: 1.0, _one)
subtract = Operation("subtract", lambda x, y: x - y, lambda i, a, z: -1.0 if i else 1.0, _one)
multiply = Operation("multiply", lambda x, y: x * y, lambda i, a, z: a[1 - i], _one)
divide = Operation("divide", lambda x, y: x / y, lambda i, a, z: -(z / a[1]) if i else divide(1.0, a[1]), _one)
negate = Operation("negate", lambda x: -x, lambda i, a, z: -1.0, lambda n: 0)
power = Operation("power", math.pow, _power_partial, lambda n: 3)  # exp(y log x)
exp = Operation("exp", math.exp, lambda i, a, z: z, _one)
log = Operation("log", math.log, lambda i, a, z: divide(1.0, a[0]), _one)
step = Operation("step", lambda x: float(x > 0), lambda i, a, z: 0.0, _one)
relu = Operation("relu", lambda x: max(x, 0.0), lambda i, a, z: step(a[0]), _one)
sigmoid = Operation("sigmoid", _sigmoid, lambda i, a, z: z * subtract(1.0, z), _one)
tanh = Operation("tanh", math.tanh, lambda i, a, z: subtract(1.0, z * z), _one)
logsumexp = Operation("logsumexp", _logsumexp, lambda i, a, z: exp(a[i] - z), lambda n: 3 * n)
inner = Operation("inner", _dot, lambda i, a, z: a[(i + len(a) // 2) % len(a)], lambda n: n - 1)
