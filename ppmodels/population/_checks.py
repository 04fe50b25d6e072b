"""What trials must be: one line that names the trial, the bin and the neuron, and says what to do."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ppmodels.base import Data

log = logging.getLogger("ppmodels")


def check_values(model: Any, data: Data) -> None:
    """Check that y is (R, T, N) of the model's bins and neurons, and finite; trials, bins and neurons count from 0.

    A neuron of which nothing can be learned, as it never changes, is told of; the others are fitted.

    Raises: ValueError of one line that says what is wrong and where.
    """
    _check(model, data)


def check_counts(model: Any, data: Data) -> None:
    """Check also that y is whole and not negative; and at most one where the model's emission is Bernoulli."""
    _check(model, data, counts=True, binary=getattr(model, "emission", "") == "bernoulli")


def check_words(model: Any, data: Data) -> None:
    """Check also that y is 0 or 1."""
    _check(model, data, counts=True, binary=True)


def _check(model: Any, data: Data, counts: bool = False, binary: bool = False) -> None:
    y = data.observed["y"]
    if y.ndim != 3 or y.shape[1:] != (model.bins, model.neurons):
        said = f"(trials, {model.bins} bins, {model.neurons} neurons)"
        raise ValueError(f"y must be {said}; it is {tuple(y.shape)}: set bins and neurons, or use for_data")
    check_array(y, data.coords.get("neuron", ()), gaps=getattr(model, "gaps", False), counts=counts, binary=binary)


def check_choice(model: Any, name: str, *choices: str) -> None:
    """Raise a ValueError of one line when a field is none of these."""
    if getattr(model, name) not in choices:
        raise ValueError(f"{name} must be {' or '.join(choices)}; it is {getattr(model, name)!r}")


def check_array(y: Tensor, names: Sequence[Any] = (), *, gaps: bool, counts: bool, binary: bool = False) -> None:
    """Raise where a value cannot be; tell of neurons that never change."""
    missing = y.isnan()
    wrong: dict[str, Tensor] = {} if gaps else {"is missing; say gaps=True for NaN": missing}
    wrong["is not finite"] = y.isinf()
    if counts:
        wrong["is negative, which no count is"] = y < 0
        wrong["is no whole number, which counts are"] = ~missing & ~y.isinf() & (y != y.round())
    if binary:
        wrong["is more than one spike, which a bin of this model does not hold"] = y > 1
    for what, where in wrong.items():
        found = where.nonzero()
        if len(found):
            trial, time, neuron = found[0].tolist()
            value = f"{y[trial, time, neuron].item():.6g}"
            raise ValueError(f"y of trial {trial}, bin {time}, neuron {_name(names, neuron)} {what}: {value}")
    dead = missing.all(-1).all(-1).nonzero()
    if len(dead):
        raise ValueError(f"trial {int(dead[0])} has no bin in which anything was seen; leave it out")
    first = torch.where(missing, torch.inf, y).amin((0, 1))
    last = torch.where(missing, -torch.inf, y).amax((0, 1))
    still = (first >= last).nonzero()[:, 0].tolist()
    if still:
        only = [f"{_name(names, i)} ({_said(float(last[i]), counts)})" for i in still]
        log.warning("neuron %s: nothing can be learned of it; the rest is fitted", ", ".join(only))


def check_positive(model: Any, *names: str) -> None:
    """Raise a ValueError of one line when a field is not positive and finite, or a count is below one."""
    for name in names:
        value = getattr(model, name)
        if isinstance(value, int) and value < 1:
            raise ValueError(f"{name} must be at least 1; it is {value}")
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} must be positive and finite; it is {value}")


def describe(y: Any, coords: Mapping[str, Sequence[Any]] | None = None) -> dict[str, Any]:
    """Return neurons, bins, gaps, center and scale of y, (R, T, N): what a model's fields say of the data."""
    y = torch.as_tensor(y)
    values = y.double().flatten(0, 1)
    center = values.nanmean(0)
    scale = (values - center).square().nanmean(0).sqrt()
    scale = torch.where(scale > 0, scale, scale[scale > 0].mean() if (scale > 0).any() else 1.0)
    shape = {"neurons": y.shape[2], "bins": y.shape[1], "gaps": bool(y.isnan().any())}
    return {**shape, "center": tuple(center.tolist()), "scale": tuple(scale.tolist())}


def _name(names: Sequence[Any], i: int) -> str:
    return repr(names[i]) if len(names) > i else str(i)


def _said(value: float, counts: bool) -> str:
    if value == float("-inf"):
        return "never seen"
    return "no spikes" if counts and value == 0 else f"always {value:.6g}"
