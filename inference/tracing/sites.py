"""The sites of a program at given draws: which are observed, what their axes are called, and which rows.

A sub-sampled plate is covered block by block, so that what is computed per row is there for every row.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from inference.base import Unsupported
from inference.density.program import is_computed, site_dims

Blocks = dict[str, Tensor]


class At(Messenger):
    """Give latent sites and parameters the values of one draw, sub-sampled plates the rows of one block.

    sub_sampled: rows of each plate that takes only some of them at random, (all, some).
    redraw: also forget the values of observed sites, so that the program draws them anew.
    """

    def __init__(self, values: Mapping[str, Tensor], block: Blocks | None = None, *, redraw: bool = False) -> None:
        super().__init__()
        self.values, self.block, self.redraw = values, dict(block or {}), redraw
        self.sub_sampled: dict[str, tuple[int, int]] = {}

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if site_is_subsample(msg):
            some = msg["fn"].subsample_size
            if msg["value"] is None and some is not None and some < msg["fn"].size:
                self.sub_sampled[name] = (msg["fn"].size, some)
                self.block.setdefault(name, torch.arange(some))
            if name in self.block:
                msg["value"], msg["done"] = self.block[name], True
        elif msg["is_observed"]:
            if self.redraw and is_data(msg):
                msg["value"], msg["is_observed"], msg["done"] = None, False, False
        elif name in self.values:
            value = self._rows(msg, self.values[name])
            if value is not None:
                msg["value"], msg["done"] = value, True

    def _pyro_param(self, msg: Any) -> None:
        if msg["name"] in self.values:
            msg["value"], msg["done"] = self.values[msg["name"]], True

    def _rows(self, msg: Any, value: Tensor) -> Tensor | None:
        """The rows of a row latent that are in this block; None where it must be drawn for other rows."""
        event = msg["fn"].event_dim
        for frame in msg["cond_indep_stack"]:
            axis = value.ndim - event + frame.dim if frame.vectorized else -1
            if axis < 0 or value.shape[axis] in (1, frame.size):
                continue
            if frame.name in self.block and value.shape[axis] == frame.full_size:
                value = value.index_select(axis, self.block[frame.name])
            elif self.redraw:
                return None
            else:
                rows = f"{value.shape[axis]} rows; plate {frame.name!r} has {frame.size}"
                raise Unsupported(f"site {msg['name']!r} has draws of {rows}")
        return value


def is_data(msg: Mapping[str, Any]) -> bool:
    """Is this an observed random variable, rather than a computed site or a bare factor?"""
    unit = isinstance(msg["fn"], dist.Unit)
    return bool(msg["is_observed"]) and not unit and not is_computed(msg)


def sample_nodes(trace: Any) -> dict[str, Any]:
    """Return the trace's random variables, by name; not the plates' choices of rows."""
    return {n: v for n, v in trace.nodes.items() if v["type"] == "sample" and not site_is_subsample(v)}


@dataclass(frozen=True)
class Program:
    """A program with its arguments, read once at one draw.

    nodes: the trace's random variables at that draw, by name.
    plates: rows by plate name, where the program takes only some of them at a time: (all, at a time).
    """

    call: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    nodes: Mapping[str, Any]
    plates: Mapping[str, tuple[int, int]]

    @classmethod
    def read(
        cls,
        call: Callable[..., Any],
        args: Any,
        kwargs: Any,
        draw: Mapping[str, Tensor],
        block: Blocks | None = None,
        *,
        redraw: bool = False,
    ) -> "Program":
        """Run the program once at this draw. Call it inside `inference.base.fresh`."""
        at = At(draw, block, redraw=redraw)
        with pyro.validation_enabled(False):
            trace = poutine.trace(at(call)).get_trace(*args, **kwargs)
        return cls(call, tuple(args), dict(kwargs), sample_nodes(trace), at.sub_sampled)

    @property
    def observed(self) -> list[str]:
        """Names of the observed random variables."""
        return [name for name, node in self.nodes.items() if is_data(node)]

    @property
    def latent(self) -> list[str]:
        """Names of the latent random variables."""
        return [name for name, node in self.nodes.items() if not node["is_observed"]]

    @property
    def computed(self) -> list[str]:
        """Names of the computed sites, those of `pyro.deterministic` and of reparametrisations."""
        return [name for name, node in self.nodes.items() if is_computed(node)]

    @property
    def nesting(self) -> int:
        """Batch axes that the program's plates take, counted from the right."""
        depths = [len(node["fn"].batch_shape) for node in self.nodes.values()]
        frames = [f.dim for node in self.nodes.values() for f in node["cond_indep_stack"] if f.vectorized]
        return max([0, *depths, *(-dim for dim in frames)])

    def dims(self, name: str) -> tuple[str, ...]:
        """Return a name for each axis of the site's value: plates, `event_dims`, or `site_dim_k`."""
        node = self.nodes[name]
        names = list(site_dims(node))
        event = node["fn"].event_dim
        if node["infer"].get("_deterministic") and event == len(names):
            event = 0  # pyro.deterministic takes all axes for the event's unless told otherwise
        for frame in node["cond_indep_stack"]:
            axis = len(names) - event + frame.dim if frame.vectorized else -1
            if axis >= 0:
                fits = node["value"].shape[axis] == frame.size
                names[axis] = frame.name if fits else f"{name}_dim_{axis}"
        return tuple(names)

    def blocks(self) -> Iterator[Blocks]:
        """Yield blocks of rows that together cover every sub-sampled plate; one empty block when none is."""
        choices = []
        for size, here in self.plates.values():
            starts = [min(start, size - here) for start in range(0, size, here)]
            choices.append([torch.arange(start, start + here) for start in starts])
        for rows in itertools.product(*choices):
            yield dict(zip(self.plates, rows, strict=True))


def place(whole: Tensor | None, part: Tensor, axes: Mapping[int, tuple[int, Tensor]]) -> Tensor:
    """Write a block into the whole: `axes` maps an axis of `part` to its full size and the rows at hand."""
    if not axes:
        return part
    if whole is None:
        shape = list(part.shape)
        for axis, (size, _) in axes.items():
            shape[axis] = size
        whole = part.new_zeros(shape)
    index = [torch.arange(n, device=part.device) for n in part.shape]
    for axis, (_, rows) in axes.items():
        index[axis] = rows.to(part.device)
    whole[torch.meshgrid(*index, indexing="ij")] = part
    return whole
