"""A program's arguments as a flat list of tensors, so that a trace takes them as inputs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.utils import _pytree as pytree

from ppmodels.base import Data


def tensors_of(args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors among the arguments, in the order in which `rebuild` takes them."""
    return [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]


def rebuild(args: Any, kwargs: Any, tensors: Sequence[Tensor]) -> tuple[Any, Any]:
    """The arguments with other tensors in place of theirs."""
    leaves, spec = pytree.tree_flatten((args, kwargs))
    new = iter(tensors)
    return pytree.tree_unflatten([next(new) if isinstance(v, Tensor) else v for v in leaves], spec)


def fingerprint(args: Any, kwargs: Any) -> tuple[Any, ...]:
    """What two calls share when one trace serves both: structure, shapes, dtypes, and all that is no tensor."""
    leaves, spec = pytree.tree_flatten((args, kwargs))
    kinds = tuple((v.shape, v.dtype, v.device) if isinstance(v, Tensor) else repr(v) for v in leaves)
    return str(spec), kinds, torch.get_default_dtype()


@contextmanager
def no_validation() -> Iterator[None]:
    """Pyro's and torch's checks of arguments off: they branch on values, which a trace would freeze."""
    torch_before, pyro_before = Distribution._validate_args, pyro.infer.util.is_validation_enabled()
    try:
        pyro.enable_validation(False)
        Distribution.set_default_validate_args(False)
        yield
    finally:
        pyro.enable_validation(pyro_before)
        Distribution.set_default_validate_args(torch_before)


def _flatten(data: Data) -> tuple[list[Any], Any]:
    labels = tuple((dim, tuple(values)) for dim, values in data.coords.items())
    return [dict(data.given), dict(data.observed), data.index], (data.rows, labels)


def _unflatten(values: Any, context: Any) -> Data:
    given, observed, index = values
    return Data(context[0], given, observed, index, dict(context[1]))


if Data not in pytree.SUPPORTED_NODES:
    pytree.register_pytree_node(Data, _flatten, _unflatten, serialized_type_name="ppmodels.base.Data")
