"""Reverse mode: the forward pass writes a tape, the backward pass reads it once from the end."""

from collections.abc import Callable, Sequence
from typing import Any

from ppmodels.backprop.operations import Liftable, Operation, add, multiply


class Tape:
    """The record of a computation: nodes in the order in which they were computed."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def variable(self, value: float) -> "Node":
        """Return an input of the computation."""
        return Node(self, float(value), None, ())

    def variables(self, *values: float) -> list["Node"]:
        """Return one input a value."""
        return [self.variable(value) for value in values]


class Node(Liftable):
    """A number on a tape that remembers how it was made.

    value: the number. operation: what made it; None for an input. arguments: nodes and constants, in order.
    index: its place on the tape; arguments always stand before.
    """

    level = 1
    __slots__ = ("arguments", "index", "operation", "tape", "value")

    def __init__(self, tape: Tape, value: float, operation: Operation | None, arguments: Sequence[Any]) -> None:
        self.tape, self.value, self.operation, self.arguments = tape, value, operation, tuple(arguments)
        self.index = len(tape.nodes)
        tape.nodes.append(self)

    def __repr__(self) -> str:
        """Place, operation and value."""
        name = self.operation.name if self.operation else "variable"
        return f"Node({self.index}, {name}, {self.value:.6g})"

    def lift(self, operation: Operation, arguments: Sequence[Any]) -> "Node":
        """Compute, and write it down.

        Raises: ValueError when the arguments stand on different tapes.
        """
        if any(isinstance(a, Node) and a.tape is not self.tape for a in arguments):
            raise ValueError(f"{operation.name} mixes nodes of two tapes")
        return Node(self.tape, operation(*map(value_of, arguments)), operation, arguments)

    def partial(self, i: int, record: bool = False) -> Any:
        """Return the derivative by argument i alone: the weight of that edge. A node when recorded."""
        if self.operation is None:
            raise ValueError("a variable has no arguments to be differentiated by")
        if record:
            return self.operation.partial(i, self.arguments, self)
        return self.operation.partial(i, [value_of(a) for a in self.arguments], self.value)


def gradient(output: Any, inputs: Sequence[Node], record: bool = False) -> list[Any]:
    r"""Return the derivative of the output by each input, by one pass from the output back.

    .. math:: \bar v = \sum_{w:\, v \in \mathrm{args}(w)} \bar w\, \frac{\partial w}{\partial v}

    Every edge is visited once, however many paths run over it, and each visit costs at most a fixed number
    of operations: a gradient costs at most 5 times the function, whatever the number of inputs.

    record: write the backward pass onto the tape too; then derivatives are nodes and can be differentiated.
    Returns: floats, or nodes (and floats where nothing varies) when recorded.
    Source: Linnainmaa (1970); Baur and Strassen (1983), the factor 5.
    """
    if not isinstance(output, Node):  # a constant
        return [0.0] * len(inputs)
    adjoint: dict[Node, Any] = {output: 1.0}
    for node in ancestors(output):
        bar = adjoint.get(node)
        if bar is None or node.operation is None:
            continue
        for i, argument in enumerate(node.arguments):
            if isinstance(argument, Node):
                share = _scaled(bar, node.partial(i, record))
                adjoint[argument] = add(adjoint[argument], share) if argument in adjoint else share
    return [adjoint.get(node, 0.0) for node in inputs]


def value_and_gradient(function: Callable[..., Any], *point: float) -> tuple[float, list[float]]:
    """Return function(*point) and its derivatives, on a tape of their own."""
    inputs = Tape().variables(*point)
    output = function(*inputs)
    return value_of(output), gradient(output, inputs)


def ancestors(output: Node) -> list[Node]:
    """Return all nodes that the output was computed from, itself first, arguments after their results."""
    found, waiting = {output}, [output]
    while waiting:
        for argument in waiting.pop().arguments:
            if isinstance(argument, Node) and argument not in found:
                found.add(argument)
                waiting.append(argument)
    return sorted(found, key=lambda node: -node.index)


def value_of(x: Any) -> float:
    """Return the number of a node; a number is its own."""
    return x.value if isinstance(x, Node) else x


def _scaled(bar: Any, partial: Any) -> Any:
    """Their product; one and minus one cost nothing."""
    if isinstance(partial, float) and partial in (1.0, -1.0):
        return bar if partial > 0 else -bar
    if isinstance(bar, float) and bar == 1.0:
        return partial
    return multiply(bar, partial)
