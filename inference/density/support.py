"""Observations that cannot be, found before anything is computed: pyro's own checks are off where speed matters."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Delta

from inference.density.inputs import no_validation
from inference.density.program import SomeValue
from ppmodels.base import Data

ROWS = 1000  # looked at together at least: a network's layers of all rows at once may not fit into memory


def refuse_impossible_rows(program: Callable[..., Any], data: Data, batch_size: int) -> None:
    """Look at all rows, about a batch at a time; no random number is used up.

    Raises: ValueError naming site, row and value of the first that cannot be.
    """
    here, size = len(next(iter(data.observed.values()))), max(batch_size, ROWS)
    with torch.random.fork_rng(devices=[]):
        for start in range(0, here, size):
            index = torch.arange(start, min(here, start + size), device=torch.get_default_device())
            refuse_impossible(program, (data.batch(index),), {}, start)


def refuse_impossible(program: Callable[..., Any], args: Any, kwargs: Mapping[str, Any], first: int = 0) -> None:
    """Run the program once, and look whether every observed value lies in its distribution's support.

    first: number of the first row.
    Raises: ValueError naming site, place and value of the first that does not.
    """
    with SomeValue(), no_validation(), torch.no_grad():
        trace: Any = poutine.trace(program).get_trace(*args, **kwargs)
    for name, node in trace.nodes.items():
        if node["type"] != "sample" or not node["is_observed"] or isinstance(node["fn"], Delta):
            continue
        value, mask = node["value"], node["mask"]
        try:
            possible = node["fn"].support.check(value)
        except (NotImplementedError, AttributeError, RuntimeError):
            continue  # a distribution that does not say what its values are
        if mask is not None:
            possible = possible | ~torch.as_tensor(mask)
        if bool(possible.all()):
            continue
        place = (~possible).nonzero()[0].tolist()
        found = value[tuple(place)] if value.ndim >= len(place) else value
        told = found.item() if found.numel() == 1 else found.tolist()
        where = f"row {first + place[0]}" if place else "its value"
        law = node["fn"]
        while hasattr(law, "base_dist"):
            law = law.base_dist
        raise ValueError(
            f"site {name!r}, {where}: {told} cannot come from {type(law).__name__}, whose values are {law.support}; "
            "correct the data, or take another likelihood"
        )
