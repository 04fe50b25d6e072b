"""Traced graphs: record a function's tensor operations once, split off what does not vary, batch it, run it.

All calls into torch's semi-private tracing and compiling interface are in this folder, and
`tests/inference/density/test_torch_interface.py` says which versions of torch they are known to work with.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import getitem
from typing import Any

import torch
from torch import Tensor, fx
from torch._functorch.compile_utils import fx_graph_cse
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.passes.shape_prop import ShapeProp

from inference.density.batching import batch_last
from inference.density.draws import drawn_anew
from inference.density.forms import shape_of
from inference.density.rewrite import compact
from inference.density.tidy import tidy

LARGE = 4096  # elements from which a constant is better made anew in the compiled loop than read from memory


@dataclass(frozen=True)
class Graph:
    """A function of some varying inputs, with all that does not vary computed beforehand.

    varying: graph of (*inputs, *constants).
    fixed: graph of (*data) -> constants; run once for every data set.
    """

    varying: fx.GraphModule
    fixed: fx.GraphModule

    @property
    def size(self) -> int:
        """Number of operations an evaluation takes."""
        return sum(node.op == "call_function" for node in self.varying.graph.nodes)

    @property
    def elements(self) -> int:
        """Number of elements that the operations of one evaluation write."""
        return sum(_numel(node) for node in self.varying.graph.nodes if node.op == "call_function")


def trace(function: Callable[..., Any], inputs: Sequence[Tensor], data: Sequence[Tensor]) -> Graph:
    """Record function(*inputs, *data), and split off what depends on the data alone."""
    return _split(record(function, [*inputs, *data]), len(inputs))


def record(function: Callable[..., Any], inputs: Sequence[Tensor]) -> fx.GraphModule:
    """Record function(*inputs) as few operations, each with its shape; random numbers are drawn at every run."""
    module = drawn_anew(make_fx(function, tracing_mode="real", decomposition_table=_DECOMPOSED)(*inputs))
    if any(_in_place(node) for node in module.graph.nodes):
        module = make_fx(torch.func.functionalize(module), tracing_mode="real")(*inputs)
    module = _clean(compact(_with_shapes(_clean(module), inputs)))
    module = _clean(tidy(_with_shapes(module, inputs)))
    return _with_shapes(module, inputs)


def batch(graph: Graph, inputs: Sequence[Tensor], data: Sequence[Tensor]) -> Graph:
    """Map a graph over many chains; its inputs and outputs are (C, ...), with the chains innermost in memory."""
    constants = graph.fixed(*data)
    last = batch_last(graph.varying, len(inputs))

    def first(*values: Tensor) -> tuple[Tensor, ...]:
        turned = [v.movedim(0, -1) for v in values[: len(inputs)]]
        return tuple(out.movedim(-1, 0) for out in last(*turned, *values[len(inputs) :]))

    outer = trace(first, inputs, constants)
    return Graph(outer.varying, _chain(graph.fixed, outer.fixed))


def _in_place(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _with_shapes(module: fx.GraphModule, inputs: Sequence[Tensor]) -> fx.GraphModule:
    with torch.no_grad():
        ShapeProp(module).propagate(*inputs)
    return module


def _clean(module: fx.GraphModule) -> fx.GraphModule:
    """Drop identities and what is computed twice or never."""
    for node in list(module.graph.nodes):
        if node.op == "call_function" and node.target in _IDENTITIES:
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
        elif node.target is torch.ops.aten._linalg_check_errors.default:
            _fail_by_nan(module.graph, node)
        elif node.target is torch.ops.aten.max.dim and all(u.target is getitem and u.args[1] == 0 for u in node.users):
            _values_only(module.graph, node)
    for node in reversed(module.graph.nodes):  # random numbers too, when nobody asks for them
        if node.op == "call_function" and not node.users and not _in_place(node):  # an input may be written to
            module.graph.erase_node(node)
    graph = fx_graph_cse(module.graph)
    return fx.GraphModule(module, graph)


def _values_only(graph: fx.Graph, maximum: fx.Node) -> None:
    """A maximum whose place nobody asks for."""
    array, dim, *keep = maximum.args
    with graph.inserting_before(maximum):
        made = graph.call_function(torch.ops.aten.amax.default, (array, [dim], *keep))
    for user in list(maximum.users):
        user.replace_all_uses_with(made)
        graph.erase_node(user)
    graph.erase_node(maximum)


def _fail_by_nan(graph: fx.Graph, check: fx.Node) -> None:
    """A factorisation that fails at one point of a batch spoils that point, not the batch."""
    info = check.args[0]
    others = [u for u in info.args[0].users if u.args[1] == 0]  # the factor, not pivots
    graph.erase_node(check)
    for factor in others:
        with graph.inserting_after(max(factor, info)):
            good = graph.call_function(torch.ops.aten.eq.Scalar, (info, 0))
        with graph.inserting_after(good):
            row = graph.call_function(torch.ops.aten.unsqueeze.default, (good, -1))
        with graph.inserting_after(row):
            matrix = graph.call_function(torch.ops.aten.unsqueeze.default, (row, -1))
        with graph.inserting_after(matrix):
            checked = graph.call_function(torch.ops.aten.where.ScalarOther, (matrix, factor, float("nan")))
        factor.replace_all_uses_with(checked, delete_user_cb=lambda user, made=checked: user is not made)


def _log_sigmoid(x: Tensor) -> tuple[Tensor, Tensor]:
    """Log sigmoid(x) without the scratch buffer that torch's own returns, and cannot batch."""
    return x.clamp(max=0.0) - torch.log1p(torch.exp(-x.abs())), x.new_zeros(0)


def _log_sigmoid_backward(grad: Tensor, x: Tensor, _: Tensor) -> Tensor:
    return grad * torch.sigmoid(-x)


_DECOMPOSED = {
    torch.ops.aten.log_sigmoid_forward.default: _log_sigmoid,
    torch.ops.aten.log_sigmoid_backward.default: _log_sigmoid_backward,
}

_IDENTITIES = {
    torch.ops.aten.detach.default,
    torch.ops.aten.alias.default,
    torch.ops.aten.lift_fresh_copy.default,
}


def _split(module: fx.GraphModule, varying_inputs: int) -> Graph:
    """Part a graph in what depends on the first inputs and what does not."""
    nodes = list(module.graph.nodes)
    placeholders = [node for node in nodes if node.op == "placeholder"]
    varies = set(placeholders[:varying_inputs])
    cheap = set()  # large and made from nothing: cheaper to make than to read
    for node in nodes:
        if node.op == "output" or any(i in varies for i in node.all_input_nodes):
            varies.add(node)
        elif node.op == "call_function" and all(i in cheap for i in node.all_input_nodes):
            cheap.add(node)
    inside = {n for n in cheap if _numel(n) > LARGE}
    inside |= {n for n in nodes if n in cheap and any(u in inside for u in n.users)} if inside else set()
    needed = [
        n for n in nodes if n not in varies and n not in inside and any(u in varies or u in inside for u in n.users)
    ]
    return Graph(
        _varying(module, nodes, varies | inside, placeholders[:varying_inputs], needed),
        _fixed(module, nodes, varies, placeholders[varying_inputs:], needed),
    )


def _varying(module: fx.GraphModule, nodes: Any, keep: Any, inputs: Any, constants: Any) -> fx.GraphModule:
    graph, here = fx.Graph(), {}
    for node in [*inputs, *constants]:
        here[node] = graph.placeholder(node.name)
        here[node].meta = dict(node.meta)
    for node in nodes:
        if node in keep and node not in here:
            here[node] = graph.node_copy(node, lambda n: here[n])
    graph.lint()
    return fx.GraphModule(module, graph)


def _fixed(module: fx.GraphModule, nodes: Any, varies: Any, data: Any, constants: Any) -> fx.GraphModule:
    graph, here = fx.Graph(), {}
    for node in data:
        here[node] = graph.placeholder(node.name)
    for node in nodes:
        if node not in varies and node not in here:
            here[node] = graph.node_copy(node, lambda n: here[n])
    graph.output(tuple(here[node] for node in constants))
    graph.eliminate_dead_code()
    return fx.GraphModule(module, graph)


def _chain(first: Callable[..., Any], second: Callable[..., Any]) -> Any:
    """Two fixed parts after one another."""
    return lambda *data: second(*first(*data))


def _numel(node: fx.Node) -> int:
    shape = shape_of(node)
    return int(torch.Size(shape).numel()) if shape is not None else 0
