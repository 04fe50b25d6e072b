"""Data that a model would make: from its prior, and from what a fit learned."""

from collections.abc import Callable, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from inference.base import Draws, Fit, Unsupported, fresh
from inference.density.program import is_computed
from inference.pointwise import assignments
from inference.tracing.learned import learned
from inference.tracing.over_draws import flatten, over_draws
from inference.tracing.sites import At, Blocks, Program, place, sample_nodes
from ppmodels.base import Data, Model

OTHER_NOISE = 0x9E3779B9  # noise of a fit's own seed would repeat the numbers that its draws were made of

__all__ = ["assignments", "computed", "predict", "prior_predictive", "simulate"]


def simulate(model: Model, rows: int, seed: int = 0) -> tuple[Data, dict[str, Tensor]]:
    """Return a data set of so many rows drawn from the model, and the latents that made it.

    Returns: the data, with what the model conditions on from `model.inputs(rows)`; and every latent and
        computed site by name, discrete ones too.
    """
    with fresh(model, seed=seed) as own, torch.no_grad():
        given = own.inputs(rows)
        nodes = sample_nodes(poutine.trace(own.model).get_trace(Data(rows, given)))
    values = {name: node["value"].detach() for name, node in nodes.items()}
    observed = {name: values.pop(name) for name in model.observed}
    return Data(rows, given, observed), values


def prior_predictive(
    model: Model | Callable[..., Any],
    *args: Any,
    num_samples: int = 500,
    seed: int = 0,
    chunk: int | None = None,
    sites: Sequence[str] | None = None,
    **kwargs: Any,
) -> Draws:
    """Return joint draws of all sites before any data are seen: latents, computed and observed ones.

    args, kwargs: what the program is called with; `(data,)` for a model of the collection, of which only
        the number of rows and what is given are used.
    sites: the ones to return; by default all.

    Returns: by site, (1, num_samples, *site).
    Raises: Unsupported when a prior is improper, or partly a bare factor, and so has no draws.
    """
    with fresh(model, args, kwargs, seed=seed) as own, torch.no_grad():
        program = Program.read(_story(own), args, kwargs, {}, redraw=True)
        for name, node in program.nodes.items():
            if _is_improper(node):
                raise Unsupported(f"the prior cannot be drawn from: site {name!r} is a factor or is masked out")
        number = {"": torch.zeros(num_samples)}
        return _sweep(program, number, list(sites or program.nodes), torch.Size([1, num_samples]), chunk)


def predict(fit: Fit, data: Data | None = None, *, seed: int = 0, chunk: int | None = None) -> Draws:
    """Return posterior predictive draws of the observed sites, one data set a draw.

    data: other rows, or other given values, of a model of the collection; by default those it was fitted
        to. New rows get new row latents.
    chunk: draws at once; by default as many as fit into memory.

    Returns: by site, (chain, draw, *site).
    Raises: TypeError for `data` with a plain program: fit's own arguments are what it is called with.
    """
    if data is not None and not isinstance(fit.model, Model):
        raise TypeError("a plain program has no `data` to replace; make a Fit with other `args` for that")
    args = fit.args if data is None else (data,)
    draws, shape = flatten(fit.draws)
    with fresh(fit.model, args, fit.kwargs, seed=seed + OTHER_NOISE) as own, learned(fit), torch.no_grad():
        first = {name: value[0] for name, value in draws.items()}
        program = Program.read(_story(own), args, fit.kwargs, first, redraw=True)
        wanted = list(own.observed) if isinstance(own, Model) else Program.read(own, args, fit.kwargs, {}).observed
        return _sweep(program, draws, wanted, shape, chunk)


def computed(fit: Fit, *, chunk: int | None = None) -> Draws:
    """Return the values of `pyro.deterministic` sites at each draw, (chain, draw, *site)."""
    draws, shape = flatten(fit.draws)
    with fresh(fit.model, fit.args, fit.kwargs) as own, learned(fit), torch.no_grad():
        first = {name: value[0] for name, value in draws.items()}
        program = Program.read(_story(own), fit.args, fit.kwargs, first, redraw=True)
        if not program.computed:
            return {}
        return _sweep(program, draws, program.computed, shape, chunk)


def _story(model: Any) -> Callable[..., Any]:
    """The program, which a model of the collection tells with nothing observed."""
    return model.model if isinstance(model, Model) else model


def _observed(model: Any, args: Any, kwargs: Any) -> list[str]:
    if isinstance(model, Model):
        return list(model.observed)
    return Program.read(model, args, kwargs, {}).observed


def _sweep(program: Program, draws: Draws, wanted: list[str], shape: torch.Size, chunk: int | None) -> Draws:
    """Run the program at every draw and every block of rows: each wanted site, (chain, draw, *site)."""
    wholes: Draws = {}
    for block in program.blocks():
        parts = list(over_draws(_values(program, block, wanted), draws, random=True, chunk=chunk))
        for name in parts[0]:
            places = enumerate(program.dims(name), 1)
            axes = {axis: (program.plates[d][0], block[d]) for axis, d in places if d in block}
            wholes[name] = place(wholes.get(name), torch.cat([part[name] for part in parts]), axes)
    return {name: value.reshape(*shape, *value.shape[1:]) for name, value in wholes.items()}


def _values(program: Program, block: Blocks, wanted: list[str]) -> Callable[[Draws], Draws]:
    def values(draw: Draws) -> Draws:
        with pyro.validation_enabled(False), At(draw, block, redraw=True):
            trace = poutine.trace(program.call).get_trace(*program.args, **program.kwargs)
        nodes: dict[str, Any] = dict(trace.nodes)
        return {name: nodes[name]["value"] for name in wanted}

    return values


def _is_improper(node: Any) -> bool:
    """Is this a bare factor, or a latent without a density, as `.mask(False)` makes flat priors?"""
    law = node["fn"]
    while isinstance(law, dist.Independent | dist.ExpandedDistribution):
        law = law.base_dist
    if is_computed(node):
        return False
    return isinstance(law, dist.Unit) or node["mask"] is False or getattr(law, "_mask", None) is False
