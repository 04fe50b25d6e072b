"""A fit, or a finished `pyro.infer.MCMC`, as an `xarray.DataTree` in ArviZ's schema; to disk and back."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from pyro.infer import MCMC

from inference.base import Draws, Fit, Unsupported, conditioned, fresh
from inference.datatree.around import around
from inference.datatree.groups import Axes, array, as_json, constants, run_attributes
from inference.datatree.netcdf import load, write
from inference.datatree.pyro_mcmc import read_mcmc
from inference.pointwise import pointwise
from inference.predict import computed, predict, prior_predictive
from inference.tracing.learned import learned
from inference.tracing.over_draws import flatten
from inference.tracing.sites import Program, place

__all__ = ["load", "save", "to_datatree"]

Make = Callable[[Fit, Axes, int], dict[str, xr.Dataset]]

log = logging.getLogger("inference")

SMALL = 2**23  # numbers (64 MiB in float64) that a group holds unasked; of more draws it holds every k-th
ENOUGH = 4000  # draws that a thinned group keeps at least: for leave-one-out, and for pictures
LARGE = 2**27  # numbers (1 GiB) above which even those are made only on request


def to_datatree(
    fit: Fit | MCMC,
    *,
    log_likelihood: bool | None = None,
    prior: int = 500,
    posterior_predictive: bool | None = None,
    save_warmup: bool = False,
    coords: Mapping[str, Sequence[Any]] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
) -> xr.DataTree:
    """Return ArviZ's groups; axes are called as plates are, labelled as `Data.coords` says.

    Groups: posterior with computed sites, sample_stats, log_likelihood, log_prior, prior,
        prior_predictive, posterior_predictive, observed_data, constant_data, `fit` with
        objectives along `step`; warmup_posterior and warmup_sample_stats on request. A group that
        cannot be had is left out, and the root's attribute `left_out` says why.

    log_likelihood: one value a draw and observation, discrete sites summed out; and the log prior.
    posterior_predictive: one data set a draw.
        Both: True for all draws, False for none. None thins a large group, evenly along every chain: its
        `draw` coordinate and its attribute `thinned` say which draws it holds. Of a point, both are taken
        at draws of the Gaussian around it, as the attribute `drawn` says: one draw has no leave-one-out.
    prior: draws from the prior and its predictive distribution; 0 leaves both out.
    coords: labels along an axis by its name, over those of the data.
    dims: names of a site's axes, of all or of the last ones, over those of plates and `event_dims`.
    seed: of the prior and predictive draws.
    """
    fit = read_mcmc(fit) if isinstance(fit, MCMC) else fit
    labels = {**(fit.data.coords if fit.data else {}), **(coords or {})}
    left_out: dict[str, str] = {}
    axes = Axes(
        _attempt(left_out, "observed_data", lambda: _program(fit)),
        dims or {},
        labels,
        row=getattr(fit.model, "row", "rows"),
    )
    draws = dict(fit.draws)
    if axes.program is not None and not set(axes.program.computed) <= set(draws):
        draws = {**(_attempt(left_out, "computed sites", lambda: computed(fit)) or {}), **draws}
    groups = _measured(fit, draws, axes, save_warmup)
    if axes.program is not None:
        groups |= _data(fit, axes, axes.program)
        if prior:
            groups |= _attempt(left_out, "prior", lambda: _prior(fit, axes, prior, seed)) or {}
        asked = {"log_likelihood": log_likelihood, "posterior_predictive": posterior_predictive}
        wide, said = around(fit) if set(asked.values()) != {False} else (fit, "")
        for name, make in {"log_likelihood": _densities, "posterior_predictive": _predicted}.items():
            if asked[name] is not False:
                some = partial(_thinned, wide, axes, seed, name, make, bool(asked[name]))
                made: dict[str, xr.Dataset] = _attempt(left_out, name, some) or {}
                groups |= {
                    group: values.assign_attrs({"drawn": said} if said else {}) for group, values in made.items()
                }
    tree = xr.DataTree.from_dict({name: value for name, value in groups.items() if value.data_vars})
    tree.attrs |= {"name": str(fit.info.get("name", _title(fit.model))), **run_attributes(fit)}
    tree.attrs["left_out"] = as_json(left_out)
    return tree


def save(fit: Fit, path: str | Path, **options: Any) -> Path:
    """Write a fit as one netCDF file: the tree that ArviZ reads, and what `load` needs besides.

    The file is written beside and renamed, so that a half-written one never stands at `path`.

    options: those of `to_datatree`; the warm-up is always kept.

    Raises: TypeError when the state or the information of the run holds what cannot be stored safely.
    """
    return write(fit, to_datatree(fit, **{"save_warmup": True, **options}), Path(path))


def _measured(fit: Fit, draws: Draws, axes: Axes, save_warmup: bool) -> dict[str, xr.Dataset]:
    """Groups that need no further computation: what the back end handed over."""
    about = run_attributes(fit)
    groups = {
        "posterior": axes.dataset(draws, attrs=about),
        "sample_stats": axes.dataset(fit.stats, attrs=about),
    }
    if save_warmup:
        groups["warmup_posterior"] = axes.dataset(fit.warmup_draws, attrs=about)
        groups["warmup_sample_stats"] = axes.dataset(fit.warmup_stats, attrs=about)
    lengths = {len(value) for value in fit.trace.values()}
    name = "step" if len(lengths) == 1 else "{}_step"
    traces = {k: (name.format(k), array(v)) for k, v in fit.trace.items()}
    groups["fit"] = xr.Dataset(traces, {d: range(len(v)) for d, v in traces.values()}, about)
    return groups


def _data(fit: Fit, axes: Axes, program: Program) -> dict[str, xr.Dataset]:
    """Observed values of all rows, and what the program conditions on."""
    observed: Draws = {}
    with fresh(fit.model, fit.args, fit.kwargs) as model:
        first = {name: value[0] for name, value in flatten(fit.draws)[0].items()}
        for block in program.blocks():
            nodes = Program.read(conditioned(model), fit.args, fit.kwargs, first, block).nodes
            for name in program.observed:
                named = enumerate(program.dims(name))
                here = {i: (program.plates[d][0], block[d]) for i, d in named if d in block}
                observed[name] = place(observed.get(name), nodes[name]["value"].detach(), here)
    given, known = constants(fit)
    same = {id(value) for value in observed.values()}
    given = {k: v for k, v in given.items() if k not in observed and id(v) not in same}
    return {
        "observed_data": axes.dataset(observed, sample_dims=()),
        "constant_data": axes.dataset(given, known, sample_dims=()),
    }


def _thinned(fit: Fit, axes: Axes, seed: int, group: str, make: Make, whole: bool) -> dict[str, xr.Dataset]:
    """What `make` returns of all draws, or of so many that the group stays small."""
    assert axes.program is not None
    shape, each = flatten(fit.draws)[1], _numbers(axes.program, 1, rows=group == "log_likelihood")
    keep = max(ENOUGH, SMALL // max(1, each))
    step = 1 if whole else min(shape[1], math.ceil(shape.numel() / keep))
    if not whole and (numbers := each * shape.numel() // step) > LARGE:
        raise Unsupported(f"{numbers:.1e} numbers; ask for it with {group}=True")
    some = replace(fit, draws={name: value[:, ::step] for name, value in fit.draws.items()}, warmup_draws={})
    made = make(some, axes, seed)
    if step > 1:
        said = f"one draw in {step} of each chain; {group}=True keeps all"
        kept = {"draw": range(0, shape[1], step)}
        made = {name: values.assign_coords(kept).assign_attrs(thinned=said) for name, values in made.items()}
    return made


def _densities(fit: Fit, axes: Axes, seed: int) -> dict[str, xr.Dataset]:
    result = pointwise(fit)
    return {
        "log_likelihood": axes.dataset(result.log_likelihood, result.dims),
        "log_prior": axes.dataset(result.log_prior, result.dims),
    }


def _prior(fit: Fit, axes: Axes, num_samples: int, seed: int) -> dict[str, xr.Dataset]:
    assert axes.program is not None
    if (numbers := _numbers(axes.program, num_samples)) > LARGE:
        raise Unsupported(f"{numbers:.1e} numbers; take fewer draws with prior=...")
    drawn = prior_predictive(fit.model, *fit.args, num_samples=num_samples, seed=seed, **fit.kwargs)
    observed = axes.program.observed
    return {
        "prior": axes.dataset({name: value for name, value in drawn.items() if name not in observed}),
        "prior_predictive": axes.dataset({name: drawn[name] for name in observed}),
    }


def _predicted(fit: Fit, axes: Axes, seed: int) -> dict[str, xr.Dataset]:
    return {"posterior_predictive": axes.dataset(predict(fit, seed=seed))}


def _program(fit: Fit) -> Program:
    if fit.model is None:
        raise Unsupported("the sampler was given a potential function and no program, so nothing can be replayed")
    first = {name: value[0] for name, value in flatten(fit.draws)[0].items()}
    with fresh(fit.model, fit.args, fit.kwargs) as model, learned(fit), torch.no_grad():
        return Program.read(conditioned(model), fit.args, fit.kwargs, first)


def _numbers(program: Program, draws: int, rows: bool = False) -> int:
    """How many numbers so many predictive draws hold; or the log likelihoods, one a row."""
    observed = [program.nodes[name] for name in program.observed]
    return draws * sum(n["fn"].batch_shape.numel() if rows else n["value"].numel() for n in observed)


def _attempt(left_out: dict[str, str], group: str, make: Callable[[], Any]) -> Any:
    """What `make` returns; where the program cannot give it, None, and the reason is kept."""
    try:
        return make()
    except (Unsupported, RuntimeError, ValueError) as reason:
        left_out[group] = str(reason) or type(reason).__name__
        log.info("group %s is left out: %s", group, left_out[group])
        return None


def _title(model: Any) -> str:
    return getattr(model, "__name__", type(model).__name__)
