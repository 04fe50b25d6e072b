"""Do on few numbers what a traced graph does on many equal ones.

Plates expand a scalar scale to every row before its logarithm is taken, and backward passes expand it again.
Here every node is kept in its compact form, with size 1 along each axis on which it does not vary: pointwise
operations act on compact forms, a sum over an expanded axis becomes a product, and only an operation that
knows nothing of this is given the full tensor. Values are the same up to rounding.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

FILLS = {aten.ones_like.default: 1.0, aten.zeros_like.default: 0.0}
SUMS = {aten.sum.dim_IntList, aten.sum.default}
ALONG_AN_AXIS = {aten._log_softmax.default, aten._softmax.default, aten.amax.default}
WRITTEN_INTO = {
    aten.index_put.default,
    aten.scatter.src,
    aten.scatter.value,
    aten.scatter_add.default,
    aten.index_add.default,
}
RESHAPES = {
    aten.view.default,
    aten.reshape.default,
    aten._unsafe_view.default,
    aten.squeeze.dims,
    aten.squeeze.dim,
    aten.unsqueeze.default,
}


@dataclass
class Compact:
    """A node's compact form: `node` has shape `shape`, and broadcasts to the `full` shape; `fill` if constant."""

    node: fx.Node
    shape: tuple[int, ...]
    full: tuple[int, ...]
    fill: float | None = None


def compact(module: fx.GraphModule) -> fx.GraphModule:
    """Return a graph of the same inputs and outputs that computes each value only once along expanded axes."""
    return _Rewriter(module).run()


class _Rewriter:
    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        values = [node.meta.get("val") for node in module.graph.nodes]
        self.device = next((v.device for v in values if isinstance(v, torch.Tensor)), torch.device("cpu"))
        self.graph = fx.Graph()
        self.forms: dict[fx.Node, Compact | None] = {}  # None: not one tensor, kept as it is
        self.new: dict[fx.Node, fx.Node] = {}  # full forms
        self.exponentials: dict[fx.Node, Compact] = {}  # of a log-sum-exp: exp(a - m) / sum exp(a - m)

    def run(self) -> fx.GraphModule:
        for node in self.module.graph.nodes:
            form = self.rewritten(node) if node.op == "call_function" and shape_of(node) is not None else None
            if form is None:
                self.new[node] = self.copied(node)
                shape = shape_of(node)
                form = Compact(self.new[node], shape, shape) if shape is not None else None
            self.forms[node] = form
        self.graph.eliminate_dead_code()
        for node in self.graph.nodes:
            node.meta = {}  # the shapes of the full forms no longer hold
        return fx.GraphModule(self.module, self.graph)

    def copied(self, node: fx.Node) -> fx.Node:
        """The operation as it is, on full tensors; what is written into gets memory of its own everywhere."""
        made = self.graph.node_copy(node, self.full)
        if node.target in WRITTEN_INTO:
            with self.graph.inserting_before(made):
                own = self.call(aten.clone.default, (made.args[0],), {"memory_format": torch.contiguous_format})
            made.args = (own, *made.args[1:])
        return made

    def full(self, node: fx.Node) -> fx.Node:
        """The node as a tensor of its whole shape."""
        if node not in self.new:
            form = self.forms[node]
            assert form is not None
            if form.shape == form.full:
                self.new[node] = form.node
            elif form.fill is not None:
                self.new[node] = self.constant(list(form.full), form.fill, dtype_of(node))
            else:
                self.new[node] = self.call(aten.expand.default, (form.node, list(form.full)))
        return self.new[node]

    def constant(self, shape: list[int], value: float, dtype: torch.dtype) -> fx.Node:
        return self.call(aten.full.default, (shape, value), {"dtype": dtype, "device": self.device})

    def call(self, target: Any, args: tuple[Any, ...], kwargs: Any = None) -> fx.Node:
        return self.graph.call_function(target, args, kwargs or {})

    def rewritten(self, node: fx.Node) -> Compact | None:
        """The compact form of an operation that is known to keep it; None for any other."""
        target = node.target
        if target in FILLS or target is aten.full_like.default:
            return self.filled(node)
        if target is aten.expand.default:
            return self.expanded(node)
        if target in RESHAPES:
            return self.reshaped(node)
        if target is aten.permute.default:
            return self.permuted(node)
        if target in SUMS:
            return self.summed(node)
        if target in {aten.index.Tensor, aten.index_put.default}:
            return self.masked(node)
        if target is aten.logsumexp.default:
            return self.log_sum_exp(node)
        if target in ALONG_AN_AXIS:
            return self.along(node)
        if target is aten._log_softmax_backward_data.default:
            return self.log_softmax_backward(node)
        if isinstance(target, torch._ops.OpOverload) and torch.Tag.pointwise in target.tags and not _mutates(target):
            return self.pointwise(node)
        return None

    def filled(self, node: fx.Node) -> Compact:
        full = shape_of(node)
        value = FILLS.get(node.target, node.args[1] if len(node.args) > 1 else 0.0)
        ones = (1,) * len(full)
        return Compact(self.constant(list(ones), value, dtype_of(node)), ones, full, value)

    def expanded(self, node: fx.Node) -> Compact:
        form, full = self.forms[node.args[0]], shape_of(node)
        shape = (1,) * (len(full) - len(form.shape)) + form.shape
        made = form.node if shape == form.shape else self.call(aten.reshape.default, (form.node, list(shape)))
        return Compact(made, shape, full, form.fill)

    def reshaped(self, node: fx.Node) -> Compact | None:
        form, full = self.forms[node.args[0]], shape_of(node)
        if form.full == full:
            return form
        if [n for n in form.full if n != 1] != [n for n in full if n != 1]:
            return None
        sizes = iter([c for c, n in zip(form.shape, form.full, strict=True) if n != 1])
        shape = tuple(1 if n == 1 else next(sizes) for n in full)
        return Compact(self.call(aten.reshape.default, (form.node, list(shape))), shape, full, form.fill)

    def permuted(self, node: fx.Node) -> Compact:
        form, order = self.forms[node.args[0]], node.args[1]
        if list(order) == list(range(len(order))):
            return form
        shape = tuple(form.shape[i] for i in order)
        return Compact(self.call(aten.permute.default, (form.node, order)), shape, shape_of(node), form.fill)

    def summed(self, node: fx.Node) -> Compact | None:
        form, full = self.forms[node.args[0]], shape_of(node)
        rank = len(form.full)
        dims = node.args[1] if len(node.args) > 1 and node.args[1] else range(rank)
        dims = sorted(d % rank for d in dims)
        keep = bool(node.args[2]) if len(node.args) > 2 else False
        if node.kwargs or not _floating(node):
            return None
        varying = [d for d in dims if form.shape[d] != 1]
        times = 1
        for d in dims:
            times *= form.full[d] if form.shape[d] == 1 else 1
        made, shape = form.node, form.shape
        if varying:
            made = self.call(aten.sum.dim_IntList, (made, varying, True))
            shape = tuple(1 if d in varying else n for d, n in enumerate(shape))
        if not keep:
            shape = tuple(n for d, n in enumerate(shape) if d not in dims)
            made = self.call(aten.reshape.default, (made, list(shape)))
        fill = None if form.fill is None else form.fill * times
        if times != 1:
            made = self.call(aten.mul.Tensor, (made, float(times)))
        return Compact(made, shape, full, fill)

    def masked(self, node: fx.Node) -> Compact | None:
        """Boolean masks: assignment of one value is a choice, and a selection is by the mask's positions.

        A compiler cannot know how many elements a mask selects; the positions of a fixed mask it is given.
        """
        array, indices, full = node.args[0], node.args[1], shape_of(node)
        if len(indices) != 1 or dtype_of(indices[0]) != torch.bool:
            return None
        mask, rank = indices[0], len(shape_of(indices[0]))
        if node.target is aten.index.Tensor:
            places = self.call(aten.nonzero.default, (self.full(mask),))
            columns = [self.call(aten.select.int, (places, 1, i)) for i in range(rank)]
            return Compact(self.call(aten.index.Tensor, (self.full(array), columns)), full, full)
        if shape_of(mask) != full or len(node.args) > 3 or torch.Size(shape_of(node.args[2])).numel() != 1:
            return None
        value = self.call(aten.reshape.default, (self.full(node.args[2]), [1] * len(full)))
        return Compact(self.call(aten.where.self, (self.full(mask), value, self.full(array))), full, full)

    def log_sum_exp(self, node: fx.Node) -> Compact | None:
        """Write it as m + log sum exp(a - m), whose exponentials its derivative, exp(a - logsumexp(a)), needs again."""
        form, full = self.forms[node.args[0]], shape_of(node)
        dims = [d % len(form.full) for d in node.args[1]]
        if any(form.shape[d] != form.full[d] for d in dims):
            return None
        top = self.call(aten.amax.default, (form.node, dims, True))
        finite = self.call(aten.ne.Scalar, (self.call(aten.abs.default, (top,)), float("inf")))
        top = self.call(aten.where.ScalarOther, (finite, top, 0.0))
        e = self.call(aten.exp.default, (self.call(aten.sub.Tensor, (form.node, top)),))
        total = self.call(aten.sum.dim_IntList, (e, dims, True))
        made = self.call(aten.add.Tensor, (self.call(aten.log.default, (total,)), top))
        self.exponentials[node] = Compact(self.call(aten.div.Tensor, (e, total)), form.shape, form.full)
        keep = len(node.args) > 2 and bool(node.args[2])
        shape = tuple(1 if d in dims else n for d, n in enumerate(form.shape) if keep or d not in dims)
        made = made if keep else self.call(aten.reshape.default, (made, list(shape)))
        return Compact(made, shape, full)

    def share(self, node: fx.Node) -> Compact | None:
        """exp(a - logsumexp(a)) as the exponentials at hand over their sum."""
        inner = node.args[0]
        if node.target is not aten.exp.default or inner.target is not aten.sub.Tensor or inner.kwargs:
            return None
        a, lse = inner.args
        while isinstance(lse, fx.Node) and lse.target in RESHAPES | {aten.expand.default}:
            lse = lse.args[0]
        known = self.exponentials.get(lse)
        return known if known is not None and lse.args[0] is a and known.full == shape_of(node) else None

    def along(self, node: fx.Node) -> Compact | None:
        form, full = self.forms[node.args[0]], shape_of(node)
        dims = node.args[1] if isinstance(node.args[1], (list, tuple)) else [node.args[1]]
        dims = [d % len(form.full) for d in dims]
        if any(form.shape[d] != form.full[d] for d in dims):
            return None
        made = self.call(node.target, (form.node, *node.args[1:]), node.kwargs)
        same_rank = len(full) == len(form.full)
        shape = tuple(
            (full[d] if d in dims else n) if same_rank else n
            for d, n in enumerate(form.shape)
            if same_rank or d not in dims
        )
        return Compact(made, shape, full)

    def log_softmax_backward(self, node: fx.Node) -> Compact | None:
        """Grad - softmax * sum(grad), with the softmax compact."""
        grad, out, full = self.forms[node.args[0]], self.forms[node.args[1]], shape_of(node)
        dim = node.args[2] % len(full)
        if grad.shape[dim] != full[dim] or out.shape[dim] != full[dim]:
            return None
        total = self.call(aten.sum.dim_IntList, (grad.node, [dim], True))
        share = self.call(aten.mul.Tensor, (self.call(aten.exp.default, (out.node,)), total))
        made = self.call(aten.sub.Tensor, (grad.node, share))
        return Compact(made, tuple(torch.broadcast_shapes(grad.shape, out.shape)), full)

    def pointwise(self, node: fx.Node) -> Compact | None:
        full = shape_of(node)
        inputs = [self.forms[n] for n in node.all_input_nodes]
        if any(form is None for form in inputs) or _dtype_mixed(node):
            return None
        simple = self.share(node) or self.simplified(node, full)
        if simple is not None:
            return simple
        made = self.graph.node_copy(node, lambda n: self.forms[n].node)
        shape = tuple(torch.broadcast_shapes(*(form.shape for form in inputs)))
        shape = (1,) * (len(full) - len(shape)) + shape
        return Compact(made, shape, full)

    def simplified(self, node: fx.Node, full: tuple[int, ...]) -> Compact | None:
        """The other factor of a product with one, the other term of a sum with zero."""
        neutral = {aten.mul.Tensor: 1.0, aten.add.Tensor: 0.0}.get(node.target)
        if node.target is aten.pow.Tensor_Scalar and node.args[1] == 1:
            return self.forms[node.args[0]]
        if node.target is aten.pow.Tensor_Scalar and node.args[1] == 2:
            form = self.forms[node.args[0]]
            return Compact(self.call(aten.mul.Tensor, (form.node, form.node)), form.shape, full)
        if neutral is None or len(node.args) != 2 or node.kwargs:
            return None
        for one, other in (node.args, node.args[::-1]):
            form = self.forms.get(other) if isinstance(other, fx.Node) else None
            value = self.forms[one].fill if isinstance(one, fx.Node) else one
            if form is not None and value == neutral and dtype_of(other) == dtype_of(node):
                shape = (1,) * (len(full) - len(form.shape)) + form.shape
                made = form.node if shape == form.shape else self.call(aten.reshape.default, (form.node, list(shape)))
                return Compact(made, shape, full, form.fill)
        return None


def shape_of(node: fx.Node) -> tuple[int, ...] | None:
    """The shape a node had when it was traced; None when it is not one tensor."""
    shape = getattr(node.meta.get("tensor_meta"), "shape", None)
    return None if shape is None else tuple(int(n) for n in shape)


def dtype_of(node: fx.Node) -> torch.dtype:
    """The dtype a node had when it was traced."""
    return node.meta["tensor_meta"].dtype


def _floating(node: fx.Node) -> bool:
    return dtype_of(node).is_floating_point


def _dtype_mixed(node: fx.Node) -> bool:
    """Would a smaller rank change the type promotion? A 0-d tensor counts less than one with axes."""
    kinds = {dtype_of(n) for n in node.all_input_nodes if dtype_of(n) != torch.bool}
    return len(kinds) > 1


def _mutates(target: Any) -> bool:
    return target._schema.is_mutable
