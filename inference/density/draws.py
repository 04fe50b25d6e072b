"""Random numbers in a traced graph: one operation for each draw, which no other pass takes for another's."""

import torch
from torch import fx

aten = torch.ops.aten

_INTO_EMPTY = {aten.normal_.default: aten.randn.default, aten.uniform_.default: aten.rand.default}
_LIKE = {aten.randn_like.default: aten.randn.default, aten.rand_like.default: aten.rand.default}
_STANDARD = (), (0.0, 1.0)  # arguments of a normal or a uniform that change nothing


def drawn_anew(module: fx.GraphModule) -> fx.GraphModule:
    """Write standard draws, into empty memory or like a tensor, as draws of a shape: the same numbers."""
    graph = module.graph
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if node.target in _INTO_EMPTY and node.args[0].target is aten.empty.memory_format:
            memory = node.args[0]
            if tuple(node.args[1:]) in _STANDARD and not node.kwargs and set(memory.users) == {node}:
                options = {k: v for k, v in memory.kwargs.items() if k != "memory_format"}
                _replace(graph, node, _INTO_EMPTY[node.target], memory.args[0], options)
                graph.erase_node(memory)
        elif node.target in _LIKE and isinstance(value := node.meta.get("val"), torch.Tensor):
            options = {"dtype": value.dtype, "device": value.device}
            _replace(graph, node, _LIKE[node.target], list(value.shape), options)
    return fx.GraphModule(module, graph)


def _replace(graph: fx.Graph, node: fx.Node, target: object, shape: object, options: dict[str, object]) -> None:
    with graph.inserting_before(node):
        made = graph.call_function(target, (shape,), options)
    made.meta = dict(node.meta)
    node.replace_all_uses_with(made)
    graph.erase_node(node)
