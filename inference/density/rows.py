"""What rows say, without the prior, and each as often as its weight says: handlers around a conditioned program."""

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from inference.base import Unsupported
from inference.density.program import is_computed

Program = Callable[..., Any]


def likelihood(program: Program, args: Any, kwargs: Any) -> Program:
    """Return the program whose density is log p(observed | latents), the prior left out.

    Raises: Unsupported when rows have latents of their own, over which a likelihood would be an integral.
    """
    own = _latents_of_rows(program, args, kwargs)
    if own:
        raise Unsupported(f"site {own[0]!r} has a value a row, which a likelihood integrates out; em or mcmc can")
    return _within(program, _WithoutPrior)


def weighed(program: Program, args: Any, kwargs: Any, weight: Any) -> Program:
    """Return the program in which each row of the plate `rows` counts as often as its weight, (rows,), says.

    Raises: ValueError that names a bad weight; Unsupported where rows have latents, continuous or summed out.
    """
    nodes = _nodes(program, args, kwargs)
    sizes = {f.size for n in nodes.values() if n["type"] == "sample" for f in n["cond_indep_stack"] if f.name == "rows"}
    if len(sizes) != 1:
        raise Unsupported("weight is for models with a plate called 'rows'")
    weight, rows = torch.as_tensor(weight, dtype=torch.get_default_dtype()), sizes.pop()
    if weight.shape != (rows,):
        raise ValueError(f"weight must be ({rows},); it is {tuple(weight.shape)}")
    wrong = (~((weight >= 0) & weight.isfinite())).nonzero()
    if len(wrong):
        raise ValueError(f"weight is {weight[wrong[0, 0]].item()} in row {int(wrong[0, 0])}; it must be 0 or more")
    own = _latents_of_rows(program, args, kwargs, discrete=True)
    if own:
        raise Unsupported(f"site {own[0]!r} is summed out in each row before rows are weighed; only em does that")
    return _within(program, lambda: _Weighed(weight))


class _WithoutPrior(Messenger):
    """Leave the density of continuous latent sites out."""

    def _pyro_sample(self, msg: Any) -> None:
        if not (msg["is_observed"] or site_is_subsample(msg) or msg["fn"].has_enumerate_support):
            msg["mask"] = False


class _Weighed(Messenger):
    """Scale what is observed in the plate of rows."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def _pyro_sample(self, msg: Any) -> None:
        for frame in msg["cond_indep_stack"]:
            if frame.name == "rows" and msg["is_observed"] and not site_is_subsample(msg):
                msg["scale"] = msg["scale"] * self.weight.reshape(-1, *[1] * (-1 - frame.dim))


def _within(program: Program, handler: Callable[[], Messenger]) -> Program:
    def inside(*args: Any, **kwargs: Any) -> Any:
        with handler():
            return program(*args, **kwargs)

    return inside


def _nodes(program: Program, args: Any, kwargs: Any) -> Any:
    with torch.no_grad(), pyro.validation_enabled(False):
        return poutine.trace(program).get_trace(*args, **kwargs).nodes


def _latents_of_rows(program: Program, args: Any, kwargs: Any, discrete: bool = False) -> list[str]:
    """Latent sites with a value a row; discrete ones, which are summed out, only where asked for."""
    found = []
    for name, node in _nodes(program, args, kwargs).items():
        latent = node["type"] == "sample" and not node["is_observed"] and not site_is_subsample(node)
        if latent and not is_computed(node) and any(f.name == "rows" for f in node["cond_indep_stack"]):
            found += [name] if discrete or not node["fn"].has_enumerate_support else []
    return found
