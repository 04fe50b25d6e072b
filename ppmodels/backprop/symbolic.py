"""Symbolic differentiation: derivatives as formulas, and why they swell."""

from collections.abc import Mapping, Sequence
from typing import Any

from ppmodels.backprop.operations import Liftable, Operation, add, multiply


class Symbol(Liftable):
    """A formula: a named variable, or an operation on formulas and constants; it may be part of many."""

    level = 1
    __slots__ = ("arguments", "name", "operation")

    def __init__(self, name: str, operation: Operation | None = None, arguments: Sequence[Any] = ()) -> None:
        self.name, self.operation, self.arguments = name, operation, tuple(arguments)

    def lift(self, operation: Operation, arguments: Sequence[Any]) -> "Symbol":
        """Write it down without computing anything."""
        return Symbol(operation.name, operation, arguments)

    def __repr__(self) -> str:
        """The formula, written out as a tree."""
        if self.operation is None:
            return self.name
        return f"{self.name}({', '.join(f'{a!r}' for a in self.arguments)})"


def differentiate(formula: Any, by: Symbol) -> Any:
    """Return the derivative by a variable, by the chain rule applied to the formula as written."""
    if formula is by:
        return 1.0
    if not isinstance(formula, Symbol) or formula.operation is None:
        return 0.0
    total: Any = 0.0
    for i, argument in enumerate(formula.arguments):
        inside = differentiate(argument, by)
        if isinstance(inside, float) and inside == 0.0:
            continue
        outside = formula.operation.partial(i, formula.arguments, formula)
        share = outside if isinstance(inside, float) and inside == 1.0 else multiply(outside, inside)
        total = share if isinstance(total, float) and total == 0.0 else add(total, share)
    return total


def evaluate(formula: Any, values: Mapping[Symbol, float]) -> float:
    """Return the formula at these values of its variables; what is shared is computed once."""
    known: dict[int, float] = {id(symbol): value for symbol, value in values.items()}
    for symbol in _distinct(formula):
        if symbol.operation is None and id(symbol) not in known:
            raise ValueError(f"no value for {symbol.name}")
        if symbol.operation is not None:
            arguments = [known[id(a)] if isinstance(a, Symbol) else a for a in symbol.arguments]
            known[id(symbol)] = symbol.operation(*arguments)
    return known[id(formula)] if isinstance(formula, Symbol) else formula


def tree_size(formula: Any) -> int:
    """Return how many operations the formula has when written out, with nothing shared."""
    size: dict[int, int] = {}
    for symbol in _distinct(formula):
        below = sum(size[id(a)] for a in symbol.arguments if isinstance(a, Symbol))
        size[id(symbol)] = below + (symbol.operation is not None)
    return size[id(formula)] if isinstance(formula, Symbol) else 0


def graph_size(formula: Any) -> int:
    """Return how many operations it takes when equal parts are computed once."""
    number: dict[Any, int] = {}  # of each different part
    place: dict[int, int] = {}
    for symbol in _distinct(formula):
        parts = tuple(("part", place[id(a)]) if isinstance(a, Symbol) else a for a in symbol.arguments)
        key = id(symbol) if symbol.operation is None else (symbol.name, parts)
        place[id(symbol)] = number.setdefault(key, len(number))
    return sum(isinstance(key, tuple) for key in number)


def _distinct(formula: Any) -> list[Symbol]:
    """All parts, each object once, arguments first; without recursion, as formulas may be long."""
    order: list[Symbol] = []
    seen: set[int] = set()
    stack = [(formula, False)]
    while stack:
        part, ready = stack.pop()
        if not isinstance(part, Symbol) or (id(part) in seen and not ready):
            continue
        if ready:
            order.append(part)
            continue
        seen.add(id(part))
        stack.append((part, True))
        stack.extend((argument, False) for argument in part.arguments)
    return order
