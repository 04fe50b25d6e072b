"""Do on few numbers what a traced graph does on many equal ones.

Plates expand a scalar scale to every row before its logarithm is taken, and backward passes expand it again.
Here every node is kept in its compact form, with size 1 along each axis on which it does not vary: pointwise
operations act on compact forms, a sum over an expanded axis becomes a product, and only an operation that
knows nothing of this is given the full tensor. Values are the same up to rounding.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from inference.density import algebra, reductions, selections
from inference.density.forms import COUNTS_UP, RESHAPES, Compact, dtype_of, is_pointwise, shape_of

aten = torch.ops.aten

FILLS = {
    aten.ones_like.default: 1.0,
    aten.zeros_like.default: 0.0,
    aten.ones.default: 1.0,
    aten.zeros.default: 0.0,
    aten.new_ones.default: 1.0,
    aten.new_zeros.default: 0.0,
}
ALONG_AN_AXIS = {
    aten._log_softmax.default,
    aten._softmax.default,
    aten.amax.default,
    aten.cumsum.default,
    aten.cumprod.default,
    aten.flip.default,
}
WRITTEN_INTO = {
    aten.index_put.default,
    aten.scatter.src,
    aten.scatter.value,
    aten.scatter_add.default,
    aten.index_add.default,
}


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
        if node.target in {aten.view.default, aten._unsafe_view.default}:
            made.target = aten.reshape.default  # an expanded tensor has no view of another shape
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
        rule = RULES.get(node.target)
        if rule is not None:
            return rule(self, node)
        return self.pointwise(node) if is_pointwise(node.target) else None

    def same(self, node: fx.Node) -> Compact | None:
        return self.forms[node.args[0]]

    def filled(self, node: fx.Node) -> Compact:
        full = shape_of(node)
        value = float(FILLS.get(node.target, node.args[-1]))
        ones = (1,) * len(full)
        return Compact(self.constant(list(ones), value, dtype_of(node)), ones, full, value)

    def counting(self, node: fx.Node) -> Compact:
        """A range from zero in steps of one, which as an index changes nothing."""
        start, _, step = (*([0] if len(node.args) == 1 else []), *node.args, 1)[:3]
        full = shape_of(node)
        return Compact(self.copied(node), full, full, counts=(start, step) == (0, 1))

    def expanded(self, node: fx.Node) -> Compact:
        form, full = self.forms[node.args[0]], shape_of(node)
        shape = (1,) * (len(full) - len(form.shape)) + form.shape
        made = form.node if shape == form.shape else self.call(aten.reshape.default, (form.node, list(shape)))
        return Compact(made, shape, full, form.fill, form.counts)

    def reshaped(self, node: fx.Node) -> Compact:
        """Any view, as a reshape: its operand need not lie in memory as it did."""
        form, full = self.forms[node.args[0]], shape_of(node)
        if form.full == full:
            return form
        if [n for n in form.full if n != 1] != [n for n in full if n != 1]:
            return Compact(self.call(aten.reshape.default, (self.full(node.args[0]), list(full))), full, full)
        sizes = iter([c for c, n in zip(form.shape, form.full, strict=True) if n != 1])
        shape = tuple(1 if n == 1 else next(sizes) for n in full)
        made = self.call(aten.reshape.default, (form.node, list(shape)))
        return Compact(made, shape, full, form.fill, form.counts)

    def permuted(self, node: fx.Node) -> Compact:
        """A permutation; one that moves only axes of size one is a reshape."""
        form, full = self.forms[node.args[0]], shape_of(node)
        rank = len(full)
        if node.target is aten.permute.default:
            order = [d % rank for d in node.args[1]]
        else:
            order = list(range(rank))
            i, j = (0, -1) if node.target is aten.t.default else node.args[1:3]
            if rank:
                order[i % rank], order[j % rank] = order[j % rank], order[i % rank]
        shape = tuple(form.shape[i] for i in order)
        moved = [i for i in order if form.shape[i] != 1]
        if order == list(range(rank)):
            return form
        if moved == sorted(moved):
            made = self.call(aten.reshape.default, (form.node, list(shape)))
            return Compact(made, shape, full, form.fill, form.counts)
        return Compact(self.call(aten.permute.default, (form.node, order)), shape, full, form.fill)

    def sliced(self, node: fx.Node) -> Compact:
        """A slice, or one element, along an axis."""
        form, full = self.forms[node.args[0]], shape_of(node)
        dim = (node.args[1] if len(node.args) > 1 else 0) % len(form.full)
        gone = node.target is aten.select.int
        if form.shape[dim] != 1 or form.full[dim] == 1:
            made = self.call(node.target, (form.node, *node.args[1:]), node.kwargs)
            shape = tuple(n for d, n in enumerate(form.shape) if d != dim or not gone)
            return Compact(made, shape if gone else (*shape[:dim], full[dim], *shape[dim + 1 :]), full)
        if not gone:
            return Compact(form.node, form.shape, full, form.fill)
        shape = (*form.shape[:dim], *form.shape[dim + 1 :])
        return Compact(self.call(aten.reshape.default, (form.node, list(shape))), shape, full, form.fill)

    def pointwise(self, node: fx.Node) -> Compact | None:
        full = shape_of(node)
        inputs = [self.forms[n] for n in node.all_input_nodes]
        if any(form is None for form in inputs) or _dtype_mixed(node):
            return None
        simple = reductions.share(self, node) or algebra.simplified(self, node, full)
        if simple is not None:
            return simple
        made = self.graph.node_copy(node, lambda n: self.forms[n].node)
        shape = tuple(torch.broadcast_shapes(*(form.shape for form in inputs)))
        shape = (1,) * (len(full) - len(shape)) + shape
        return Compact(made, shape, full)


def _dtype_mixed(node: fx.Node) -> bool:
    """Would a smaller rank change the type promotion? A 0-d tensor counts less than one with axes."""
    kinds = {dtype_of(n) for n in node.all_input_nodes if dtype_of(n) != torch.bool}
    return len(kinds) > 1


RULES: dict[Any, Callable[[_Rewriter, fx.Node], Compact | None]] = {
    **dict.fromkeys([*FILLS, aten.full_like.default, aten.full.default, aten.new_full.default], _Rewriter.filled),
    **dict.fromkeys(COUNTS_UP, _Rewriter.counting),
    **dict.fromkeys(RESHAPES, _Rewriter.reshaped),
    **dict.fromkeys([aten.permute.default, aten.transpose.int, aten.t.default], _Rewriter.permuted),
    **dict.fromkeys([aten.slice.Tensor, aten.select.int], _Rewriter.sliced),
    **dict.fromkeys([aten.index.Tensor, aten.index_put.default], selections.indexed),
    **dict.fromkeys([aten.sum.dim_IntList, aten.sum.default], reductions.summed),
    **dict.fromkeys(ALONG_AN_AXIS, reductions.along),
    aten._log_softmax_backward_data.default: reductions.log_softmax_backward,
    aten.logsumexp.default: reductions.log_sum_exp,
    aten.expand.default: _Rewriter.expanded,
    aten.clone.default: _Rewriter.same,
    aten.bmm.default: algebra.small_products,
}
