"""What a traced graph makes of nothing but constants, computed once; and steps with which nothing changes."""

import operator
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

aten = torch.ops.aten

_SCALABLE = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor}
_SAME_WITH = {aten.add.Tensor: 0.0, aten.sub.Tensor: 0.0, aten.mul.Tensor: 1.0, aten.div.Tensor: 1.0}


def inline_constants(module: fx.GraphModule) -> fx.GraphModule:
    """Return the graph with its constants as numbers where they are one number, and computed beforehand where not."""
    graph, values = module.graph, _constants(module)
    for node, value in values.items():
        used_by_others = [user for user in node.users if user not in values]
        if isinstance(value, Tensor) and node.op != "get_attr" and used_by_others:
            name = f"_constant_{node.name}"
            module.register_buffer(name, value, persistent=False)
            with graph.inserting_before(node):
                kept = graph.get_attr(name)
            kept.meta = dict(node.meta)
            for user in used_by_others:
                user.replace_input_with(node, kept)
    constants = _constants(module)
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target in _SCALABLE and len(node.args) == 2 and not node.kwargs:
            _simplify(node, constants)
    graph.eliminate_dead_code()
    return fx.GraphModule(module, graph)


def _simplify(node: fx.Node, constants: dict[fx.Node, Any]) -> None:
    """An operation with one number: the number itself; none where the other stays as it is."""
    left, right = node.args
    value = constants.get(right) if isinstance(right, fx.Node) else right
    if isinstance(value, Tensor) and value.numel() == 1 and value.is_floating_point() and _alike(node, left):
        value = value.item()
    if isinstance(value, int | float) and _alike(node, left):
        if value == _SAME_WITH[node.target]:
            node.replace_all_uses_with(left)
        else:
            node.args = (left, value)


def _alike(node: fx.Node, other: Any) -> bool:
    """Have both the same shape and dtype?"""
    metas = [n.meta.get("tensor_meta") if isinstance(n, fx.Node) else None for n in (node, other)]
    return None not in metas and metas[0].shape == metas[1].shape and metas[0].dtype == metas[1].dtype


def _constants(module: fx.GraphModule) -> dict[fx.Node, Any]:
    """Values of all nodes that no input and no random number reaches."""
    values: dict[fx.Node, Any] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            values[node] = operator.attrgetter(node.target)(module)
        elif node.op == "call_function" and all(i in values for i in node.all_input_nodes) and _is_fixed(node):
            args, kwargs = map_arg((node.args, dict(node.kwargs)), values.__getitem__)
            values[node] = node.target(*args, **kwargs)
    return values


def _is_fixed(node: fx.Node) -> bool:
    """Does it give the same value every time, and not more memory than it is worth?"""
    if node.target is operator.getitem:
        return True
    if not isinstance(node.target, torch._ops.OpOverload) or node.target._schema.is_mutable:
        return False
    random = torch.Tag.nondeterministic_seeded in node.target.tags
    return not random and node.target not in {aten.empty.memory_format, aten.empty_like.default}
