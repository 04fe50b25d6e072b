"""What every back end shares: the question it is asked, the answer it gives, and a clean slate."""

import copy
import importlib
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.poutine import runtime
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ppmodels.base import Data, HasCheck, HasLabels, HasOptional, Model

Program = Callable[..., Any]
Draws = dict[str, Tensor]


class Unsupported(TypeError):
    """This back end cannot fit this model; the message is the reason in one line."""


@dataclass(frozen=True)
class Fit:
    """An answer: draws of the latents and how they were found; the same type for every back end.

    model: the model of the collection, with what it learned, or the plain Pyro program.
    args, kwargs: what it was called with; `(data,)` for a model of the collection.
    draws: by site, (chain, draw, *site). A point is one draw; independent draws are chain 1. Exchangeable
        latents (`HasLabels`) are in the model's own order in every draw, so that chains can be compared.
    trace: objectives by name, (step,), higher is better: `log_likelihood`, `bound`, `log_density`, `elbo`.
    stats: ArviZ's `sample_stats` by name, (chain, draw).
    info: numbers and words about the run: seed, seconds, converged, message, the options used.
    warmup_draws, warmup_stats: the same as draws and stats, of the warm-up, when asked for.
    state: what `extend` continues from.
    """

    model: Model | Program
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    method: str
    draws: Draws
    trace: dict[str, Tensor] = field(default_factory=dict)
    stats: dict[str, Tensor] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    warmup_draws: Draws = field(default_factory=dict, repr=False)
    warmup_stats: dict[str, Tensor] = field(default_factory=dict, repr=False)
    state: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Put exchangeable latents in one order."""
        if isinstance(self.model, HasLabels):
            for field_name in ("draws", "warmup_draws"):
                if draws := getattr(self, field_name):
                    object.__setattr__(self, field_name, self.model.relabel(draws))

    @property
    def data(self) -> Data | None:
        """The data set of a model of the collection."""
        return self.args[0] if self.args and isinstance(self.args[0], Data) else None

    def __repr__(self) -> str:
        """One line: what was fitted, how, and what came out."""
        sites = ", ".join(f"{name} {tuple(value.shape)}" for name, value in self.draws.items())
        return f"Fit({self.info.get('name', self.model)!s}, {self.method!r}, {sites})"

    def summary(self, **options: Any) -> Any:
        """Return ArviZ's table of means, sds, intervals, ESS and R-hat, a `pandas.DataFrame`."""
        return _above("check").summary(self, **options)

    def diagnose(self) -> Any:
        """Return a `Diagnosis`: is the answer to be trusted, and what to do next if not."""
        return _above("check").diagnose(self)

    def standard_errors(self, **options: Any) -> Draws:
        """Return how far off a point may be, by site, (*site): by the curvature there, or kind="sandwich"."""
        return _above("information").standard_errors(self, **options)

    def predict(self, *args: Any, **options: Any) -> Draws:
        """Return posterior predictive draws of the observed sites, (chain, draw, *site)."""
        return _above("predict").predict(self, *args, **options)

    def extend(self, num_samples: int, **options: Any) -> "Fit":
        """Return the same fit with `num_samples` more draws a chain, without a new warm-up."""
        back_end = importlib.import_module(f"inference.{self.method}")
        if not hasattr(back_end, "extend"):
            raise Unsupported(f"{self.method} has nothing to extend: its draws are independent or a point")
        return back_end.extend(self, num_samples, **options)

    def to_datatree(self, **options: Any) -> Any:
        """Return an `xarray.DataTree` with ArviZ's groups."""
        return _above("datatree").to_datatree(self, **options)

    def save(self, path: str | Path) -> Path:
        """Write one netCDF file from which `inference.load` makes this fit again."""
        return _above("datatree").save(self, path)


def joint(model: Model | Program, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Program:
    """Return the program to fit, log p(latents, observed); refuse what the model cannot learn from."""
    check_data(model, args, kwargs)
    return conditioned(model)


def conditioned(model: Model | Program) -> Program:
    """Return the program that scores latents and observations together, on any data that it is called with.

    A model of the collection is conditioned on `data.observed`; a plain Pyro program is itself.
    """
    if not isinstance(model, Model):
        return model

    def program(data: Data) -> None:
        pyro.condition(model.model, data=dict(data.observed))(data)

    program.key = model  # equal models share one trace  # pyright: ignore[reportFunctionMemberAccess]
    return program


def check_data(model: Model | Program, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuse data that a model of the collection cannot be fitted to; a plain Pyro program takes what it takes.

    Raises:
        TypeError: not one `Data`, or options that no model has.
        ValueError: a site that is observed is missing, misshapen or, by the model's own check, no such data.
    """
    if not isinstance(model, Model):
        return
    if len(args) != 1 or not isinstance(args[0], Data):
        raise TypeError(f"{type(model).__name__} is fitted to one `Data`; make it with Data.of(model, ...)")
    if kwargs:
        raise TypeError(f"no option is called {', '.join(kwargs)}")
    missing = [name for name in model.observed if name not in args[0].observed]
    if missing:
        raise ValueError(f"the data hold no {', '.join(missing)}, which {type(model).__name__} observes")
    if isinstance(model, HasOptional) and (extra := args[0].given.keys() & {*model.optional}):
        raise ValueError(f"this method reads no {extra.pop()}; leave it out, and repeat rows instead")
    if isinstance(model, HasCheck):
        model.check(args[0])
    else:
        check_finite(args[0])
    _check_shapes(model, args[0])


def check_finite(data: Data) -> None:
    """Raise a ValueError that names the first row and column that is NaN or infinite."""
    for name, value in {**data.given, **data.observed}.items():
        if value.is_floating_point() and not value.isfinite().all():
            place = (~value.isfinite()).nonzero()[0].tolist()
            where = "row " + ", column ".join(map(str, place))
            raise ValueError(f"{name} is {value[tuple(place)].item()} in {where}; drop or fill such rows")


def _check_shapes(model: Model, data: Data) -> None:
    """Raise a ValueError where observed values are not shaped as the model's own; else they would be broadcast."""
    found = {name: tuple(value.shape) for name, value in data.observed.items() if name in model.observed}
    few = torch.arange(min(2, *(shape[0] if shape else 0 for shape in found.values())))
    with fresh(model, (data,)) as own, torch.no_grad(), pyro.validation_enabled(False):
        try:
            nodes = poutine.trace(own.model).get_trace(replace(data.batch(few), rows=len(few), index=None)).nodes
        except (ValueError, RuntimeError):  # fewer rows are no such data set, or this is what is wrong
            nodes = _nodes(own, data)
    for name, shape in found.items():
        wanted = tuple(nodes[name]["value"].shape[1:])
        if shape[1:] != wanted:
            said = ", ".join(["rows", *map(str, wanted)]) if wanted else "rows,"
            raise ValueError(f"{name} must be ({said}); it is {shape}")


def _nodes(model: Model, data: Data) -> Any:
    """The sites of a run; of an error the first line, without the shapes that Pyro adds."""
    try:
        return poutine.trace(model.model).get_trace(data).nodes
    except ValueError as error:
        raise ValueError(str(error).splitlines()[0]) from None


@contextmanager
def fresh(model: Any, args: Any = (), kwargs: Any = None, *, seed: int = 0) -> Iterator[Any]:
    """Yield a copy of the model on a clean slate; afterwards all is as before, also after an exception.

    Inside: an empty parameter store, every generator at `seed`, as many threads as `threads` allows, and the
    data's dtype and device as torch's defaults (float64 on the CPU where the data do not say). Outside, Pyro's
    store and handler stack, the random states of torch, NumPy and Python, and torch's defaults are untouched.
    """
    dtype, device = _dtype_and_device(args, kwargs)
    stack, default = list(runtime._PYRO_STACK), torch.get_default_dtype()
    numpy_state, python_state = np.random.get_state(), random.getstate()
    on_gpu, number = device.type == "cuda", torch.get_num_threads()
    try:
        torch.set_num_threads(_threads.get())
        with (
            pyro.get_param_store().scope(),
            torch.random.fork_rng([device] if on_gpu else []),
            _default(device),
        ):
            torch.set_default_dtype(dtype)
            pyro.set_rng_seed(seed % 2**32)
            yield copy.deepcopy(model)
    finally:
        torch.set_num_threads(number)
        torch.set_default_dtype(default)
        runtime._PYRO_STACK[:] = stack
        np.random.set_state(numpy_state)
        random.setstate(python_state)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Let the fits inside use so many of the processor's threads; one is the default.

    The last digits of a sum that threads share depend on how many there are, and with them all draws: so the
    same seed gives the same draws on any machine until this says otherwise. Large matrices gain by it.
    """
    before = _threads.set(number)
    try:
        yield
    finally:
        _threads.reset(before)


_threads: ContextVar[int] = ContextVar("threads", default=1)


def _default(device: torch.device) -> Any:
    """Make tensors on this device; the CPU is so already, and torch's switch costs time in every call."""
    return nullcontext() if device.type == "cpu" else device


def _dtype_and_device(args: Any, kwargs: Any) -> tuple[torch.dtype, torch.device]:
    """Those of the data: the widest floating dtype among the tensors, and where they lie."""
    data = [(a.given, a.observed) if isinstance(a, Data) else a for a in (args or ())]
    tensors = [t for t in tree_leaves((data, kwargs)) if isinstance(t, Tensor)]
    device = tensors[0].device if tensors else torch.device("cpu")
    floating = [t.dtype for t in tensors if t.is_floating_point()]
    return (reduce(torch.promote_types, floating) if floating else torch.float64), device


def _above(module: str) -> Any:
    """What is built on a fit, looked up by name: the only import that points upward."""
    return importlib.import_module(f"inference.{module}")
