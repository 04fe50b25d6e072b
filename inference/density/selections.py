"""Compact forms of indexing: the values of a summed-out site take every element in order, and masks are choices."""

from typing import Any

import torch
from torch import fx

from inference.density.forms import Compact, dtype_of, shape_of
from inference.density.reductions import sum_over

aten = torch.ops.aten


def indexed(rewriter: Any, node: fx.Node) -> Compact | None:
    """Taking every element in order (the values of a summed-out site) is a reshape, and so is its derivative."""
    array, indices, full = rewriter.forms[node.args[0]], node.args[1], shape_of(node)
    given = [i for i in indices if i is not None]
    if dtype_of(given[0]) == torch.bool:
        return masked(rewriter, node)
    axis, index = next(d for d, i in enumerate(indices) if i is not None), rewriter.forms[given[0]]
    whole = index.counts and torch.Size(index.shape).numel() == array.full[axis]
    if len(given) > 1 or not whole:
        return None
    before, after = array.full[:axis], array.full[axis + 1 :]
    if node.target is aten.index.Tensor:
        inside = index.shape if array.shape[axis] != 1 else (1,) * len(index.shape)
        shape = (*array.shape[:axis], *inside, *array.shape[axis + 1 :])
        return Compact(rewriter.call(aten.reshape.default, (array.node, list(shape))), shape, full, array.fill)
    adds = len(node.args) > 3 and node.args[3]
    if array.fill != 0 or not (adds or index.shape == index.full):
        return None
    values, target = rewriter.forms[node.args[2]], (*before, *index.full, *after)
    shape = (1,) * (len(target) - len(values.shape)) + values.shape
    made = rewriter.call(aten.reshape.default, (values.node, list(shape)))
    again = [axis + d for d, n in enumerate(index.shape) if n != index.full[d]]
    total = sum_over(rewriter, Compact(made, shape, target), again, keep=True)
    inside = (array.full[axis],) if any(n != 1 for n in total.shape[axis : axis + len(index.full)]) else (1,)
    shape = (*total.shape[:axis], *inside, *total.shape[axis + len(index.full) :])
    return Compact(rewriter.call(aten.reshape.default, (total.node, list(shape))), shape, full)


def masked(rewriter: Any, node: fx.Node) -> Compact | None:
    """Boolean masks: assignment of one value is a choice, and a selection is by the mask's positions.

    A compiler cannot know how many elements a mask selects; the positions of a fixed mask it is given.
    """
    array, indices, full = node.args[0], node.args[1], shape_of(node)
    if len(indices) != 1:
        return None
    mask, rank = indices[0], len(shape_of(indices[0]))
    if node.target is aten.index.Tensor:
        places = rewriter.call(aten.nonzero.default, (rewriter.full(mask),))
        columns = [rewriter.call(aten.select.int, (places, 1, i)) for i in range(rank)]
        return Compact(rewriter.call(aten.index.Tensor, (rewriter.full(array), columns)), full, full)
    if shape_of(mask) != full or len(node.args) > 3 or torch.Size(shape_of(node.args[2])).numel() != 1:
        return None
    value = rewriter.call(aten.reshape.default, (rewriter.full(node.args[2]), [1] * len(full)))
    return Compact(rewriter.call(aten.where.self, (rewriter.full(mask), value, rewriter.full(array))), full, full)
