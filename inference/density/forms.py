"""What the rewriting of traced graphs speaks of: compact forms of nodes, and kinds of operations."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

RESHAPES = {
    aten.view.default,
    aten.reshape.default,
    aten._unsafe_view.default,
    aten.squeeze.default,
    aten.squeeze.dims,
    aten.squeeze.dim,
    aten.unsqueeze.default,
}

COUNTS_UP = {aten.arange.default, aten.arange.start, aten.arange.start_step}

_ELEMENTWISE = {  # that torch does not mark as such
    aten.where.self,
    aten.where.ScalarOther,
    aten.where.ScalarSelf,
    aten.where.Scalar,
    aten.softplus_backward.default,
    aten._to_copy.default,
}


@dataclass
class Compact:
    """A node's compact form: `node` has shape `shape`, and broadcasts to the `full` shape.

    fill: its value where it is constant. counts: are its elements 0, 1, 2, ..., in order?
    """

    node: fx.Node
    shape: tuple[int, ...]
    full: tuple[int, ...]
    fill: float | None = None
    counts: bool = False


def is_pointwise(target: Any) -> bool:
    """Does the operation act on each element by itself, and write nothing in place?"""
    if not isinstance(target, torch._ops.OpOverload) or target._schema.is_mutable:
        return False
    return torch.Tag.pointwise in target.tags or target in _ELEMENTWISE


def shape_of(node: fx.Node) -> tuple[int, ...] | None:
    """The shape a node had when it was traced; None when it is not one tensor."""
    shape = getattr(node.meta.get("tensor_meta"), "shape", None)
    return None if shape is None else tuple(int(n) for n in shape)


def dtype_of(node: fx.Node) -> torch.dtype:
    """The dtype a node had when it was traced."""
    return node.meta["tensor_meta"].dtype


def is_floating(node: fx.Node) -> bool:
    """Is it one tensor of real numbers?"""
    return dtype_of(node).is_floating_point
