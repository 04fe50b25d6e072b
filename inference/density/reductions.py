"""Compact forms of sums, log-sum-exps and softmaxes: what does not vary along an axis is multiplied, not added."""

from typing import Any

import torch
from torch import fx

from inference.density.forms import RESHAPES, Compact, is_floating, shape_of

aten = torch.ops.aten


def summed(rewriter: Any, node: fx.Node) -> Compact | None:
    """A sum over some axes or all."""
    form = rewriter.forms[node.args[0]]
    rank = len(form.full)
    dims = node.args[1] if len(node.args) > 1 and node.args[1] else range(rank)
    keep = bool(node.args[2]) if len(node.args) > 2 else False
    if node.kwargs or not is_floating(node) or not is_floating(node.args[0]):
        return None
    return sum_over(rewriter, form, sorted(d % rank for d in dims), keep)


def sum_over(rewriter: Any, form: Compact, dims: list[int], keep: bool) -> Compact:
    """The sum of a form over these axes."""
    varying = [d for d in dims if form.shape[d] != 1]
    times = 1
    for d in dims:
        times *= form.full[d] if form.shape[d] == 1 else 1
    made, shape = form.node, form.shape
    if varying:
        made = rewriter.call(aten.sum.dim_IntList, (made, varying, True))
        shape = tuple(1 if d in varying else n for d, n in enumerate(shape))
    full = tuple(1 if d in dims else n for d, n in enumerate(form.full) if keep or d not in dims)
    if not keep:
        shape = tuple(n for d, n in enumerate(shape) if d not in dims)
        made = rewriter.call(aten.reshape.default, (made, list(shape)))
    fill = None if form.fill is None or varying else form.fill * times
    if times != 1:
        made = rewriter.call(aten.mul.Tensor, (made, float(times)))
    return Compact(made, shape, full, fill)


def log_sum_exp(rewriter: Any, node: fx.Node) -> Compact | None:
    """Write it as m + log sum exp(a - m), whose exponentials its derivative, exp(a - logsumexp(a)), needs again."""
    form, full = rewriter.forms[node.args[0]], shape_of(node)
    dims = [d % len(form.full) for d in node.args[1]]
    if any(form.shape[d] != form.full[d] for d in dims):
        return None
    call = rewriter.call
    top = call(aten.amax.default, (form.node, dims, True))
    finite = call(aten.ne.Scalar, (call(aten.abs.default, (top,)), float("inf")))
    top = call(aten.where.ScalarOther, (finite, top, 0.0))
    e = call(aten.exp.default, (call(aten.sub.Tensor, (form.node, top)),))
    total = call(aten.sum.dim_IntList, (e, dims, True))
    made = call(aten.add.Tensor, (call(aten.log.default, (total,)), top))
    rewriter.exponentials[node] = Compact(call(aten.div.Tensor, (e, total)), form.shape, form.full)
    keep = len(node.args) > 2 and bool(node.args[2])
    shape = tuple(1 if d in dims else n for d, n in enumerate(form.shape) if keep or d not in dims)
    made = made if keep else call(aten.reshape.default, (made, list(shape)))
    return Compact(made, shape, full)


def share(rewriter: Any, node: fx.Node) -> Compact | None:
    """exp(a - logsumexp(a)) as the exponentials at hand over their sum."""
    inner = node.args[0]
    if node.target is not aten.exp.default or inner.target is not aten.sub.Tensor or inner.kwargs:
        return None
    a, lse = inner.args
    while isinstance(lse, fx.Node) and lse.target in RESHAPES | {aten.expand.default}:
        lse = lse.args[0]
    known = rewriter.exponentials.get(lse)
    return known if known is not None and lse.args[0] is a and known.full == shape_of(node) else None


def along(rewriter: Any, node: fx.Node) -> Compact | None:
    """A maximum or a softmax along axes on which the form varies."""
    form, full = rewriter.forms[node.args[0]], shape_of(node)
    dims = node.args[1] if isinstance(node.args[1], (list, tuple)) else [node.args[1]]
    dims = [d % len(form.full) for d in dims]
    if any(form.shape[d] != form.full[d] for d in dims):
        return None
    made = rewriter.call(node.target, (form.node, *node.args[1:]), node.kwargs)
    same_rank = len(full) == len(form.full)
    shape = tuple(
        (full[d] if d in dims else n) if same_rank else n
        for d, n in enumerate(form.shape)
        if same_rank or d not in dims
    )
    return Compact(made, shape, full)


def log_softmax_backward(rewriter: Any, node: fx.Node) -> Compact | None:
    """Grad - softmax * sum(grad), with the softmax compact."""
    grad, out, full = rewriter.forms[node.args[0]], rewriter.forms[node.args[1]], shape_of(node)
    dim = node.args[2] % len(full)
    if grad.shape[dim] != full[dim] or out.shape[dim] != full[dim]:
        return None
    total = rewriter.call(aten.sum.dim_IntList, (grad.node, [dim], True))
    share = rewriter.call(aten.mul.Tensor, (rewriter.call(aten.exp.default, (out.node,)), total))
    made = rewriter.call(aten.sub.Tensor, (grad.node, share))
    return Compact(made, tuple(torch.broadcast_shapes(grad.shape, out.shape)), full)
