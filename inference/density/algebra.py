"""Compact forms of products, and arithmetic that need not be done: powers of one, products with one, double signs."""

from typing import Any

import torch
from torch import fx

from inference.density.forms import Compact, dtype_of, shape_of
from inference.density.reductions import sum_over

aten = torch.ops.aten

NEUTRAL = {aten.mul.Tensor: 1.0, aten.div.Tensor: 1.0, aten.add.Tensor: 0.0, aten.sub.Tensor: 0.0}
WRITTEN_OUT = 64  # multiplications of a small matrix product up to which it is a sum of products


def simplified(rewriter: Any, node: fx.Node, full: tuple[int, ...]) -> Compact | None:
    """What costs less: no power, no product with one, no sum with zero, no sign turned twice."""
    target, first, *rest = node.target, *node.args
    if target is aten.pow.Tensor_Scalar and rest[0] == 1:
        return rewriter.forms[first]
    if target is aten.pow.Tensor_Scalar and rest[0] == 2:
        form = rewriter.forms[first]
        return Compact(rewriter.call(aten.mul.Tensor, (form.node, form.node)), form.shape, full)
    if target is aten._to_copy.default and dtype_of(first) == dtype_of(node):
        return rewriter.forms[first]
    if target is aten.neg.default and first.target is aten.neg.default:
        return rewriter.forms[first.args[0]]
    if target is aten.neg.default and first.target is aten.sub.Tensor:
        return difference(rewriter, *reversed(first.args), full) if not first.kwargs else None
    if target is aten.add.Tensor and not node.kwargs and getattr(rest[0], "target", None) is aten.neg.default:
        return difference(rewriter, first, rest[0].args[0], full)
    if target in NEUTRAL and not node.kwargs:
        both = ((first, *rest), (*rest, first)) if target in {aten.mul.Tensor, aten.add.Tensor} else ((*rest, first),)
        return next((form for one, other in both if (form := without(rewriter, one, other, node))), None)
    return None


def difference(rewriter: Any, a: Any, b: Any, full: tuple[int, ...]) -> Compact | None:
    """One node less the other; None where one is a number."""
    if not isinstance(a, fx.Node) or not isinstance(b, fx.Node):
        return None
    made = rewriter.call(aten.sub.Tensor, (rewriter.forms[a].node, rewriter.forms[b].node))
    shape = tuple(torch.broadcast_shapes(rewriter.forms[a].shape, rewriter.forms[b].shape))
    return Compact(made, (1,) * (len(full) - len(shape)) + shape, full)


def without(rewriter: Any, one: Any, other: Any, node: fx.Node) -> Compact | None:
    """The other operand, where the one is neutral."""
    form, full = rewriter.forms.get(other) if isinstance(other, fx.Node) else None, shape_of(node)
    value = rewriter.forms[one].fill if isinstance(one, fx.Node) else one
    if form is None or value != NEUTRAL[node.target] or dtype_of(other) != dtype_of(node):
        return None
    shape = (1,) * (len(full) - len(form.shape)) + form.shape
    made = form.node if shape == form.shape else rewriter.call(aten.reshape.default, (form.node, list(shape)))
    return Compact(made, shape, full, form.fill)


def small_products(rewriter: Any, node: fx.Node) -> Compact | None:
    """Products of many small matrices as sums of products, each over what varies."""
    a, b = (rewriter.forms[n] for n in node.args)
    (batch, n, k), m = a.full, b.full[2]
    if n * k * m > WRITTEN_OUT:
        return None
    left = rewriter.call(aten.reshape.default, (a.node, [*a.shape, 1]))
    right = rewriter.call(aten.reshape.default, (b.node, [b.shape[0], 1, *b.shape[1:]]))
    shape = tuple(torch.broadcast_shapes((*a.shape, 1), (b.shape[0], 1, *b.shape[1:])))
    products = Compact(rewriter.call(aten.mul.Tensor, (left, right)), shape, (batch, n, k, m))
    return sum_over(rewriter, products, [2], keep=False)
