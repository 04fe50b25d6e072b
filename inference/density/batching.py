"""A traced graph over many chains at once, with the chains along the last axis.

`torch.vmap` puts the batch first, so that a model's own short axes (two components, three columns) end up
innermost in memory and a compiler can fill only two lanes of a vector with them. With the chains last, every
operation of every model is the same operation on C neighbouring numbers. Operations that have no rule here
go through `torch.vmap` one by one.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from inference.density.small_matrices import LARGEST, cholesky_rule, solve_rule

aten = torch.ops.aten
SMALL_PRODUCT = LARGEST**3  # multiplications up to which a matrix product is written out


def batch_last(module: fx.GraphModule, width: int) -> Callable[..., Any]:
    """Return f(*inputs, *constants): the graph with the first `width` inputs, and all outputs, (..., C)."""

    def batched(*inputs: Tensor) -> Any:
        run = _ChainsLast(module, width)
        outputs = run.run(*inputs)
        flags = run.flags[next(n for n in module.graph.nodes if n.op == "output").args[0]]
        chains = inputs[0].shape[-1]
        return tuple(
            out if flag else out.unsqueeze(-1).expand(*out.shape, chains)
            for out, flag in zip(outputs, flags, strict=True)
        )

    return batched


class _ChainsLast(fx.Interpreter):
    """Run a graph on batched values, keeping count of which of them carry the chains."""

    def __init__(self, module: fx.GraphModule, width: int) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.width = width
        self.flags: dict[Any, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "placeholder":
            index = sum(f is not None for f in self.flags.values())
            self.flags[n] = index < self.width
            return super().run_node(n)
        if n.op == "output":
            names = n.args[0]
            self.flags[names] = tuple(self.flags[a] for a in names)
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        flags = fx.map_arg((n.args, n.kwargs), lambda a: self.flags[a])
        leaves = [self.flags[a] for a in n.all_input_nodes]
        if not any(any(f) if isinstance(f, tuple) else f for f in leaves):
            out = n.target(*args, **kwargs)
            self.flags[n] = tuple(False for _ in out) if isinstance(out, (tuple, list)) else False
            return out
        if n.target in CONSTANTS:
            self.flags[n] = False
            return n.target(args[0][..., 0] if flags[0][0] else args[0], *args[1:], **kwargs)
        if n.target is operator.getitem:
            self.flags[n] = flags[0][0][args[1]]
            return args[0][args[1]]
        rule = RULES.get(n.target)
        if rule is None and isinstance(n.target, torch._ops.OpOverload) and torch.Tag.pointwise in n.target.tags:
            rule = _pointwise
        out = rule(n.target, args, kwargs, flags) if rule is not None else NotImplemented
        if out is NotImplemented:
            out = _by_vmap(n.target, args, kwargs, flags)
        self.flags[n] = tuple(v is not None for v in out) if isinstance(out, (tuple, list)) else True
        return out


def _by_vmap(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """Any operation, through torch's own rule for a batch along the last axis."""
    leaves, spec = torch.utils._pytree.tree_flatten((args, kwargs))
    marks, _ = torch.utils._pytree.tree_flatten(flags)
    marks = [isinstance(v, Tensor) and m is True for v, m in zip(leaves, marks, strict=True)]
    batched = [v for v, m in zip(leaves, marks, strict=True) if m]

    absent: list[Any] = []

    def call(*values: Tensor) -> Any:
        new = iter(values)
        a, k = torch.utils._pytree.tree_unflatten(
            [next(new) if m else v for v, m in zip(leaves, marks, strict=True)], spec
        )
        out = target(*a, **k)
        if not isinstance(out, (tuple, list)):
            return out
        absent[:] = [v is None for v in out]
        return tuple(v for v in out if v is not None)

    out = torch.func.vmap(call, in_dims=-1, out_dims=-1)(*batched)
    if not absent:
        return out
    present = iter(out)
    return tuple(None if missing else next(present) for missing in absent)


def _pointwise(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    if target._schema.is_mutable:
        return NotImplemented
    values = [
        a.unsqueeze(-1) if isinstance(a, Tensor) and a.ndim and not f else a
        for a, f in zip(args, flags[0], strict=True)
    ]
    return target(*values, **kwargs)


def _rank(args: Any) -> int:
    return args[0].ndim - 1


def _one_dim(position: int, default: int | None = None, extra: int = 0) -> Callable[..., Any]:
    """Operations on a batched first argument with one axis as argument."""

    def rule(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
        if flags[0][0] is not True or any(f is True for f in flags[0][1:]):
            return NotImplemented
        rank = _rank(args) + extra
        if len(args) > position and isinstance(args[position], int):
            return target(*args[:position], args[position] % rank, *args[position + 1 :], **kwargs)
        return target(*args, **kwargs) if default is not None and len(args) <= position else NotImplemented

    return rule


def _many_dims(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """Reductions over a list of axes; an empty list or none at all means every axis but the chains."""
    rank = _rank(args)
    given = args[1] if len(args) > 1 else None
    dims = [d % rank for d in given] if given else list(range(rank))
    if not dims:
        return args[0]
    if target is aten.sum.default:
        return aten.sum.dim_IntList(args[0], dims, **kwargs)
    return target(args[0], dims, *args[2:], **kwargs)


def _view(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    numel = args[0].numel() // args[0].shape[-1]
    size = list(args[1])
    if -1 in size:
        known = -int(torch.Size(size).numel()) if size else 1
        size[size.index(-1)] = numel // known if known else 0
    return aten.reshape.default(args[0], [*size, args[0].shape[-1]])


def _expand(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    return target(args[0], [*args[1], args[0].shape[-1]], **kwargs)


def _permute(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    rank = _rank(args)
    return target(args[0], [*(d % rank for d in args[1]), rank]) if rank else args[0]


def _transpose(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    return aten.transpose.int(args[0], 0, 1) if _rank(args) == 2 else args[0]


def _swap(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    rank = _rank(args)
    return target(args[0], args[1] % rank, args[2] % rank)


def _joined(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """Cat and stack: what does not vary is expanded over the chains."""
    chains = next(a.shape[-1] for a, f in zip(args[0], flags[0][0], strict=True) if f)
    parts = [a if f else a.unsqueeze(-1).expand(*a.shape, chains) for a, f in zip(args[0], flags[0][0], strict=True)]
    rank = parts[0].ndim - 1 + (target is aten.stack.default)
    return target(parts, (args[1] if len(args) > 1 else 0) % rank)


def _matrix_vector(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """One matrix for all chains: C products in one."""
    matrix, vector = flags[0]
    a, b = args
    if vector and not matrix:
        return aten.mm.default(a, b)
    if a.shape[0] * a.shape[1] > SMALL_PRODUCT:
        return NotImplemented
    return (a * (b if vector else b[:, None])[None]).sum(1)  # (n, k, C) * (1, k, C) -> (n, C)


def _matrix_matrix(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """A fixed matrix on the left meets the chains' columns side by side; small matrices are written out."""
    left, right = flags[0]
    a, b = args
    if right and not left:
        inner, columns, chains = b.shape
        return aten.mm.default(a, b.reshape(inner, columns * chains)).reshape(len(a), columns, chains)
    if a.shape[0] * a.shape[1] * b.shape[1] > SMALL_PRODUCT:
        return NotImplemented
    b = b if right else b[..., None]
    return (a[:, :, None] * b[None]).sum(1)  # (n, k, 1, C) * (1, k, m, C) -> (n, m, C)


def _slice_backward(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    sizes = [*args[1], args[0].shape[-1]]
    return target(args[0], sizes, args[2] % len(args[1]), *args[3:])


CONSTANTS = {aten.new_ones.default, aten.new_zeros.default, aten.new_full.default, aten.new_empty.default}

RULES: dict[Any, Callable[..., Any]] = {
    aten.view.default: _view,
    aten.reshape.default: _view,
    aten._unsafe_view.default: _view,
    aten.expand.default: _expand,
    aten.permute.default: _permute,
    aten.t.default: _transpose,
    aten.sum.default: _many_dims,
    aten.sum.dim_IntList: _many_dims,
    aten.logsumexp.default: _many_dims,
    aten.amax.default: _many_dims,
    aten.amin.default: _many_dims,
    aten.squeeze.dims: _many_dims,
    aten.squeeze.dim: _one_dim(1),
    aten.unsqueeze.default: _one_dim(1, extra=1),
    aten.slice.Tensor: _one_dim(1, default=0),
    aten.select.int: _one_dim(1),
    aten._log_softmax.default: _one_dim(1),
    aten._softmax.default: _one_dim(1),
    aten.cumsum.default: _one_dim(1),
    aten.cumprod.default: _one_dim(1),
    aten.index_select.default: _one_dim(1),
    aten.slice_backward.default: _slice_backward,
    aten.select_backward.default: _slice_backward,
    aten.cat.default: _joined,
    aten.stack.default: _joined,
    aten.mv.default: _matrix_vector,
    aten.mm.default: _matrix_matrix,
    aten.transpose.int: _swap,
    aten.linalg_cholesky_ex.default: cholesky_rule,
    aten.linalg_solve_triangular.default: solve_rule,
}
