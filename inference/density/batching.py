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

from inference.density.axes import AXES
from inference.density.forms import is_pointwise
from inference.density.products import PRODUCTS
from inference.density.small_matrices import SMALL_MATRICES

aten = torch.ops.aten


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
        rule = RULES.get(n.target) or (_pointwise if is_pointwise(n.target) else None)
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
    values = [
        a.unsqueeze(-1) if isinstance(a, Tensor) and a.ndim and not f else a
        for a, f in zip(args, flags[0], strict=True)
    ]
    return target(*values, **kwargs)


CONSTANTS = {aten.new_ones.default, aten.new_zeros.default, aten.new_full.default, aten.new_empty.default}

RULES = {**AXES, **PRODUCTS, **SMALL_MATRICES}
