"""Rules for operations on axes, with the chains along the last one: shapes, slices, indices, parts of matrices.

Axes are counted from the front, where the chains do not shift them. Each rule takes the operation, its arguments
and which of them carry the chains, and returns the result, or `NotImplemented`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def with_chains(x: Tensor, batched: bool, chains: int) -> Tensor:
    """What does not vary, expanded over the chains."""
    return x if batched else x.unsqueeze(-1).expand(*x.shape, chains)


def view(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """Any change of shape that keeps the order of elements."""
    numel = args[0].numel() // args[0].shape[-1]
    size = list(args[1])
    if -1 in size:
        known = -int(torch.Size(size).numel()) if size else 1
        size[size.index(-1)] = numel // known if known else 0
    return aten.reshape.default(args[0], [*size, args[0].shape[-1]])


def expand(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """An expansion; -1 keeps an axis."""
    x, size = args[0], list(args[1])
    missing = len(size) - (x.ndim - 1)
    size[missing:] = [n if n != -1 else x.shape[d] for d, n in enumerate(size[missing:])]
    return target(x, [*size, x.shape[-1]], **kwargs)


def permute(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """Another order of axes; the chains stay last."""
    rank = _rank(args)
    return target(args[0], [*(d % rank for d in args[1]), rank]) if rank else args[0]


def transpose(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """Two axes swapped."""
    rank = _rank(args)
    if rank == 0 or (target is aten.t.default and rank == 1):
        return args[0]
    first, second = (0, 1) if target is aten.t.default else args[1:]
    return aten.transpose.int(args[0], first % rank, second % rank)


def one_axis(position: int, default: int | None = None, extra: int = 0) -> Callable[..., Any]:
    """Operations on a batched first argument with one axis as argument."""

    def rule(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
        others = zip(args[1:], flags[0][1:], strict=True)
        if not flags[0][0] or any(f is True and isinstance(a, Tensor) for a, f in others):
            return NotImplemented
        rank = _rank(args) + extra
        if len(args) > position and isinstance(args[position], int) and rank:
            return target(*args[:position], args[position] % rank, *args[position + 1 :], **kwargs)
        return target(*args, **kwargs) if default is not None and len(args) <= position else NotImplemented

    return rule


def many_axes(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """Reductions over a list of axes; an empty list or none at all means every axis but the chains."""
    rank = _rank(args)
    given = args[1] if len(args) > 1 else None
    dims = [d % rank for d in given] if given and rank else list(range(rank))
    if not dims:
        return args[0].to(kwargs["dtype"]) if kwargs.get("dtype") else args[0]
    if target is aten.sum.default:
        return aten.sum.dim_IntList(args[0], dims, **kwargs)
    return target(args[0], dims, *args[2:], **kwargs)


def flip(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """Axes reversed."""
    return target(args[0], [d % _rank(args) for d in args[1]])


def squeeze(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """All axes of size one dropped, but for a single chain."""
    ones = [d for d, n in enumerate(args[0].shape[:-1]) if n == 1]
    return aten.squeeze.dims(args[0], ones) if ones else args[0]


def pad(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """Its widths are listed from the last axis on."""
    return target(args[0], [0, 0, *args[1]], *args[2:], **kwargs)


def joined(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """Cat and stack."""
    batched = flags[0][0]
    chains = next(a.shape[-1] for a, f in zip(args[0], batched, strict=True) if f)
    parts = [with_chains(a, f, chains) for a, f in zip(args[0], batched, strict=True)]
    rank = parts[0].ndim - 1 + (target is aten.stack.default)
    return target(parts, (args[1] if len(args) > 1 else 0) % rank)


def slice_backward(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """Also of `select`."""
    sizes = [*args[1], args[0].shape[-1]]
    return target(args[0], sizes, args[2] % len(args[1]), *args[3:])


def triangle(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """Tril and triu: a choice by a fixed mask."""
    x = args[0]
    mask = target(torch.ones(x.shape[-3:-1], dtype=torch.bool, device=x.device), *args[1:])
    return torch.where(mask[..., None], x, 0.0)


def diagonal(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """It puts the diagonal last, which here is before the chains."""
    rank = _rank(args)
    offset, first, second = (*args[1:], *(0, 0, 1)[len(args) - 1 :])
    return target(args[0], offset, first % rank, second % rank).transpose(-1, -2)


def diagonal_backward(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """A diagonal put into matrices of zeros."""
    grad, sizes, offset, first, second = args
    rank = len(sizes)
    return target(grad.transpose(-1, -2), [*sizes, grad.shape[-1]], offset, first % rank, second % rank)


def diag_embed(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """A vector as a diagonal matrix."""
    offset, first, second = (*args[1:], *(0, -2, -1)[len(args) - 1 :])
    rank = _rank(args) + 1
    return target(args[0].transpose(-1, -2), offset, first % rank, second % rank)


def index(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """The same elements for every chain."""
    return NotImplemented if any(flags[0][1]) else target(*args)


def index_put(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """The same places for every chain; what is written into varies, and has memory of its own."""
    if any(flags[0][1]):
        return NotImplemented
    array, places, values, *rest = args
    chains = array.shape[-1] if flags[0][0] else values.shape[-1]
    array = with_chains(array, flags[0][0], chains).clone(memory_format=torch.contiguous_format)
    return target(array, places, values if flags[0][2] else values.unsqueeze(-1), *rest)


def along_index(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """Gather and scatter along one axis, with an index for each chain or one for all."""
    x, dim, *rest = args
    chains = next(a.shape[-1] for a, f in zip(args, flags[0], strict=True) if isinstance(a, Tensor) and f)
    rank = x.ndim - flags[0][0]
    tensors = [
        with_chains(a, f, chains) if isinstance(a, Tensor) else a for a, f in zip(rest, flags[0][2:], strict=True)
    ]
    if rank == 0 or any(isinstance(a, Tensor) and a.ndim != rank + 1 for a in tensors):
        return NotImplemented
    x = with_chains(x, flags[0][0], chains)
    if target is not aten.gather.default:
        x = x.clone(memory_format=torch.contiguous_format)
    return target(x, dim % rank, *tensors, **kwargs)


def _rank(args: Any) -> int:
    return args[0].ndim - 1


AXES: dict[Any, Callable[..., Any]] = {
    aten.view.default: view,
    aten.reshape.default: view,
    aten._unsafe_view.default: view,
    aten.expand.default: expand,
    aten.permute.default: permute,
    aten.t.default: transpose,
    aten.transpose.int: transpose,
    aten.sum.default: many_axes,
    aten.sum.dim_IntList: many_axes,
    aten.logsumexp.default: many_axes,
    aten.amax.default: many_axes,
    aten.amin.default: many_axes,
    aten.squeeze.dims: many_axes,
    aten.squeeze.dim: one_axis(1),
    aten.squeeze.default: squeeze,
    aten.unsqueeze.default: one_axis(1, extra=1),
    aten.slice.Tensor: one_axis(1, default=0),
    aten.select.int: one_axis(1),
    aten.max.dim: one_axis(1),
    aten.min.dim: one_axis(1),
    aten._log_softmax.default: one_axis(1),
    aten._softmax.default: one_axis(1),
    aten.cumsum.default: one_axis(1),
    aten.cumprod.default: one_axis(1),
    aten.index_select.default: one_axis(1),
    aten.flip.default: flip,
    aten.constant_pad_nd.default: pad,
    aten.slice_backward.default: slice_backward,
    aten.select_backward.default: slice_backward,
    aten.cat.default: joined,
    aten.stack.default: joined,
    aten.tril.default: triangle,
    aten.triu.default: triangle,
    aten.diagonal.default: diagonal,
    aten.diagonal_backward.default: diagonal_backward,
    aten.diag_embed.default: diag_embed,
    aten.index.Tensor: index,
    aten.index_put.default: index_put,
    aten.gather.default: along_index,
    aten.scatter.value: along_index,
    aten.scatter.src: along_index,
    aten.scatter_add.default: along_index,
}
