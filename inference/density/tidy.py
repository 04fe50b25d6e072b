"""Peepholes over a traced graph: reshapes of reshapes, permutations of permutations, and sums of slices put back."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import fx

from inference.density.forms import RESHAPES, shape_of

aten = torch.ops.aten

Pieces = dict[tuple[int, int], fx.Node]  # by first and last place along an axis


def tidy(module: fx.GraphModule) -> fx.GraphModule:
    """Return the graph with fewer steps; nodes need the shapes that they were traced with."""
    graph = module.graph
    for node in list(graph.nodes):
        if node.target in RESHAPES and shape_of(node) is not None:
            _reshape(graph, node)
        elif node.target is aten.permute.default:
            _permute(graph, node)
    _join_slices(graph)
    graph.eliminate_dead_code()
    return fx.GraphModule(module, graph)


def _reshape(graph: fx.Graph, node: fx.Node) -> None:
    """A reshape straight from the first of its chain; none where it ends as it began."""
    source = node.args[0]
    if source.target is aten.reshape.default:
        source = source.args[0]
    if shape_of(source) == shape_of(node):
        node.replace_all_uses_with(source)
        return
    node.target, node.args, node.kwargs = aten.reshape.default, (source, list(shape_of(node))), {}


def _permute(graph: fx.Graph, node: fx.Node) -> None:
    source, order = node.args
    rank = len(order)
    if source.target is aten.permute.default:
        source, inner = source.args
        order = [inner[d % rank] % rank for d in order]
    if [d % rank for d in order] == list(range(rank)):
        node.replace_all_uses_with(source)
        return
    node.args = (source, list(order))


def _join_slices(graph: fx.Graph) -> None:
    """A sum of disjoint slices, each in a tensor of zeros: the gradient of a vector that was cut into sites."""
    placed: dict[fx.Node, tuple[int, Pieces]] = {}
    for node in graph.nodes:
        if node.target is aten.slice_backward.default:
            _, sizes, dim, start, stop, step = node.args
            size = sizes[dim]
            start, stop = (min(max(v + size if v < 0 else v, 0), size) for v in (start, stop))
            if step == 1 and start < stop and len(node.users) == 1:
                placed[node] = dim % len(sizes), {(start, stop): node.args[0]}
        elif node.target is aten.add.Tensor and not node.kwargs and all(a in placed for a in node.args):
            (dim, left), (other, right) = (placed[a] for a in node.args)
            alike = dim == other and shape_of(node.args[0]) == shape_of(node.args[1])
            if alike and node.args[0] is not node.args[1] and _disjoint([*left, *right]):
                placed[node] = dim, {**left, **right}
    for node in [n for n in placed if n.target is aten.add.Tensor]:
        if len(node.users) != 1 or next(iter(node.users)) not in placed:
            _concatenate(graph, node, *placed[node])


def _concatenate(graph: fx.Graph, node: fx.Node, dim: int, pieces: Pieces) -> None:
    shape, end, parts = shape_of(node), 0, []

    def zeros(width: int, like: fx.Node) -> Any:
        return graph.call_function(aten.new_zeros.default, (like, [*shape[:dim], width, *shape[dim + 1 :]]))

    with graph.inserting_before(node):
        for (start, stop), piece in sorted(pieces.items(), key=lambda item: item[0]):
            parts += [zeros(start - end, piece)] if start > end else []
            parts.append(piece)
            end = stop
        parts += [zeros(shape[dim] - end, parts[0])] if end < shape[dim] else []
        joined = graph.call_function(aten.cat.default, (parts, dim))
    joined.meta = dict(node.meta)
    node.replace_all_uses_with(joined)


def _disjoint(spans: Sequence[tuple[int, int]]) -> bool:
    ordered = sorted(spans)
    return all(before[1] <= after[0] for before, after in pairwise(ordered))
