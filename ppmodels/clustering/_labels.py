"""One order for exchangeable components."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor


def relabel(draws: Mapping[str, Tensor], shared: Iterable[str] = ()) -> dict[str, Tensor]:
    """Return the draws with their components in the order of loc's first coordinate, (..., K, D) each.

    All sites that have one entry a component are permuted together; labels z, (..., N), are renamed.
    shared: sites that all components have in common. Any leading shape, the same for all sites.
    """
    order = draws["loc"][..., 0].argsort(-1)  # (..., K)
    rank, batch = order.argsort(-1), order.ndim - 1
    sorted_ = {}
    for name, value in draws.items():
        if name == "z":
            sorted_[name] = rank.take_along_dim(value.long(), -1).to(value.dtype)
        elif name in shared:
            sorted_[name] = value
        else:
            index = order.reshape(*order.shape, *[1] * (value.ndim - order.ndim))
            sorted_[name] = value.take_along_dim(index, batch)
    return sorted_


def ordered(model: Any, theta: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the parameters in the order that the model's prior asks for, where it asks for one."""
    return model.relabel(theta) if model.ordered else theta
