"""A function of one draw, evaluated at many: batched in chunks that fit into memory, else one by one."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

log = logging.getLogger("inference")

Named = dict[str, Tensor]
MEMORY = 256 * 2**20  # bytes that one chunk may take, intermediate results included


def over_draws(
    function: Callable[[Named], Named], draws: Named, *, random: bool = False, chunk: int | None = None
) -> Iterator[Named]:
    """Yield function(draw) for all draws, in chunks, each stacked along a new first axis, (chunk, ...).

    draws: by site, (S, *site); at least one.
    random: the function draws random numbers; otherwise batched results are checked against it.
    chunk: draws at once; by default as many as stay under `MEMORY`, judged from the first draw.
    """
    total = len(next(iter(draws.values())))
    first = {name: value[0] for name, value in draws.items()}
    with _largest_result() as largest:
        expected = function(first)
    chunk = chunk or max(1, MEMORY // max(1, 4 * largest[0]))
    batched = total > 1 and chunk > 1
    for start in range(0, total, chunk):
        part = {name: value[start : start + chunk] for name, value in draws.items()}
        check = None if random or start else expected
        result = _batched(function, part, check, "different" if random else "error") if batched else None
        if result is None:
            batched = False
            result = _one_by_one(function, part)
        yield result


def flatten(draws: Named) -> tuple[Named, torch.Size]:
    """Return draws along one axis, (chain * draw, *site), and (chain, draw); one empty draw for none."""
    if not draws:
        return {"": torch.zeros(1)}, torch.Size([1, 1])
    shape = next(iter(draws.values())).shape[:2]
    return {name: value.reshape(-1, *value.shape[2:]) for name, value in draws.items()}, shape


def _batched(function: Callable[[Named], Named], draws: Named, expected: Named | None, randomness: str) -> Named | None:
    """The function under vmap, or None where that fails or gives another answer than at one draw."""
    try:
        with warnings.catch_warnings():  # that an operation, as a Gamma's draw, is not batched inside torch
            warnings.filterwarnings("ignore", "There is a performance drop")
            with _OutOfPlace() if randomness == "different" else nullcontext():
                result = torch.vmap(function, randomness=randomness)(draws)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as reason:
        # Whatever is wrong with the program itself shows again, and clearly, one draw at a time.
        log.debug("draws are evaluated one by one, because batched: %s", reason)
        return None
    for name, value in (expected or {}).items():
        if not torch.allclose(result[name][0], value, rtol=1e-6, atol=1e-8, equal_nan=True):
            log.warning("site %r depends on the draw in a way that cannot be batched; one by one", name)
            return None
    return result


class _OutOfPlace(TorchFunctionMode):
    """Draw noise anew instead of filling an empty tensor with it, as torch's normals do and `vmap` refuses."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.normal_ and len(args) == 1 and not kwargs:
            return torch.randn_like(args[0])
        return func(*args, **(kwargs or {}))


def _one_by_one(function: Callable[[Named], Named], draws: Named) -> Named:
    total = len(next(iter(draws.values())))
    results = [function({name: value[i] for name, value in draws.items()}) for i in range(total)]
    return {name: torch.stack([result[name] for result in results]) for name in results[0]}


@contextmanager
def _largest_result() -> Iterator[list[int]]:
    """Bytes of the largest tensor that any operation inside returns."""
    largest = [0]

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            sizes = [t.numel() * t.element_size() for t in tree_leaves(result) if isinstance(t, Tensor)]
            largest[0] = max([*largest, *sizes])
            return result

    with Watch():
        yield largest
