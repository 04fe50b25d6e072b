"""Weighted graphs, and sums over all paths of one: what backpropagation computes, in any semiring."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ppmodels.backprop.semiring import SUM_PRODUCT, Semiring
from ppmodels.backprop.tape import Node, ancestors


@dataclass(frozen=True)
class Edge:
    """From an argument to a result; its weight is the partial derivative."""

    source: Hashable
    target: Hashable
    weight: float


class Graph:
    """An acyclic graph of weighted edges; two edges may join the same two vertices.

    Raises: ValueError when it has a cycle.
    """

    def __init__(self, edges: Iterable[Edge]) -> None:
        self.edges = tuple(edges)
        self.outgoing: dict[Hashable, list[Edge]] = {}
        for edge in self.edges:
            self.outgoing.setdefault(edge.source, []).append(edge)
            self.outgoing.setdefault(edge.target, [])
        self.order = _topological(self.outgoing)

    @classmethod
    def of(cls, output: Node) -> "Graph":
        """Return the graph that the backward pass from this node walks over; vertices are nodes."""
        return cls(
            Edge(argument, node, node.partial(i))
            for node in ancestors(output)
            for i, argument in enumerate(node.arguments)
            if isinstance(argument, Node)
        )

    def paths(self, source: Hashable, target: Hashable) -> Iterator[tuple[Edge, ...]]:
        """Yield every path; there may be exponentially many."""
        waiting: list[tuple[Hashable, tuple[Edge, ...]]] = [(source, ())]
        while waiting:
            vertex, path = waiting.pop()
            if vertex == target:
                yield path
            waiting.extend((edge.target, (*path, edge)) for edge in self.outgoing.get(vertex, ()))

    def sum_over_paths(
        self,
        source: Hashable,
        target: Hashable,
        semiring: Semiring[Any] = SUM_PRODUCT,
        lift: Callable[[Edge], Any] = lambda edge: edge.weight,
    ) -> Any:
        r"""Return the sum over paths of the product of their edges, visiting each edge at most once.

        .. math:: \bigoplus_{\text{paths}} \bigotimes_{\text{edges}} \mathrm{lift}(e)

        With sum and product of the weights themselves this is the derivative of target by source.

        Source: Bauer (1974), SIAM Review 16; Du et al. (2023), ACL, for other semirings.
        """
        total = {target: semiring.one}
        for vertex in reversed(self.order):
            for edge in self.outgoing[vertex]:
                if edge.target in total:
                    share = semiring.multiply(lift(edge), total[edge.target])
                    total[vertex] = semiring.add(total.get(vertex, semiring.zero), share)
        return total.get(source, semiring.zero)


def path_sum(graph: Graph, source: Hashable, target: Hashable) -> float:
    """Return the derivative as Bauer writes it, path by path; exponential in time."""
    total = 0.0
    for path in graph.paths(source, target):
        product = 1.0
        for edge in path:
            product *= edge.weight
        total += product
    return total


def _topological(outgoing: dict[Hashable, list[Edge]]) -> list[Hashable]:
    """All vertices, each before those that its edges lead to."""
    incoming = dict.fromkeys(outgoing, 0)
    for edges in outgoing.values():
        for edge in edges:
            incoming[edge.target] += 1
    order = [vertex for vertex, count in incoming.items() if count == 0]
    for vertex in order:  # grows while it is read
        for edge in outgoing[vertex]:
            incoming[edge.target] -= 1
            if incoming[edge.target] == 0:
                order.append(edge.target)
    if len(order) < len(outgoing):
        left = next(vertex for vertex, count in incoming.items() if count)
        raise ValueError(f"the graph has a cycle; it cannot be ordered beyond {left!r}")
    return order
