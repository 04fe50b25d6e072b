"""Tensors by site, as one group of an ArviZ tree: what the axes are called, their labels, the attributes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import arviz_base
import numpy as np
import torch
import xarray as xr
from torch import Tensor

from inference.base import Fit
from inference.tracing.sites import Program
from ppmodels.base import Data

RESERVED = {"chain", "draw", "sample", "pred_id"}
PLOTTED = {"column", "row", "model"}  # arviz_plots lays out its panels along axes of these names


@dataclass(frozen=True)
class Axes:
    """Names and labels of the axes of a program's sites.

    program: where the plates are; None when the program cannot be run.
    dims: names that the caller chose, by site: of all axes, or of the last ones.
    coords: labels along an axis, by its name; `feature_bis`, as of a matrix, has those of `feature`.
    row: what the axis of rows is called; a model may say, as those of neurons do: "trial".
    """

    program: Program | None
    dims: Mapping[str, Sequence[str]] = field(default_factory=dict)
    coords: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict, repr=False)
    row: str = "rows"

    def names(self, site: str, shape: Sequence[int], known: Sequence[str] | None = None) -> list[str]:
        """Return one name an axis; a generic one where a name stands for another length or a variable.

        What arviz_plots would take for its own, such as `column`, is called `column_dim`.
        """
        generic = [f"{site}_dim_{i}" for i in range(len(shape))]
        if known is None and self.program is not None and site in self.program.nodes:
            known = self.program.dims(site)
        names = list(known) if known is not None and len(known) == len(shape) else list(generic)
        chosen = list(self.dims.get(site, ()))[-len(shape) :] if shape else []
        names[len(names) - len(chosen) :] = chosen
        variables = {site, *(self.program.nodes if self.program else ())}
        for i, name in enumerate(free(self.row if name == "rows" else name) for name in names):
            taken = name in RESERVED or name in variables or name in names[:i]
            names[i] = generic[i] if taken or self.sizes.setdefault(name, shape[i]) != shape[i] else name
        return names

    def dataset(
        self,
        values: Mapping[str, Tensor],
        known: Mapping[str, Sequence[str]] | None = None,
        sample_dims: Sequence[str] = ("chain", "draw"),
        attrs: Mapping[str, Any] | None = None,
    ) -> xr.Dataset:
        """Return the group: each value (*sample_dims, *site). `known` names axes that no site has."""
        known, first = known or {}, len(sample_dims)
        dims = {s: self.names(s, v.shape[first:], known.get(s)) for s, v in values.items()}
        used = {name for names in dims.values() for name in names}
        known_labels = {free(name): list(label) for name, label in self.coords.items()}
        labels: dict[Any, Any] = {
            name: known_labels[name.removesuffix("_bis")] for name in used if name.removesuffix("_bis") in known_labels
        }
        for name, label in labels.items():
            if len(label) != self.sizes[name]:
                raise ValueError(f"{len(label)} labels for {name!r}, which has {self.sizes[name]} elements")
        made = arviz_base.dict_to_dataset(
            {_variable(site): array(value) for site, value in values.items()},
            dims={_variable(site): names for site, names in dims.items()},
            coords=labels,
            sample_dims=list(sample_dims),
            check_conventions=False,  # it takes more chains than draws for a mistake
            attrs={**library(), **(attrs or {})},
        )
        for site in values:
            if _variable(site) != site:
                made[_variable(site)].attrs["site"] = site
        return made


def free(name: str) -> str:
    """Return a name for an axis that arviz_plots leaves alone."""
    return f"{name}_dim" if name in PLOTTED else name


def library() -> dict[str, str]:
    """Return who made a group."""
    name, number = "ppmodels", _version("ppmodels")
    return {
        "creation_library": name,
        "creation_library_version": number,
        "inference_library": name,
        "inference_library_version": number,
    }


def run_attributes(fit: Fit) -> dict[str, Any]:
    """Return how the draws were made, as attributes that netCDF can hold."""
    info = fit.info
    found: dict[str, Any] = {"inference_method": fit.method, "info": as_json(info)}
    if isinstance(info.get("seconds"), int | float):
        found["sampling_time"] = float(info["seconds"])
    if isinstance(info.get("num_warmup"), int):
        found["tuning_steps"] = info["num_warmup"]
    if isinstance(info.get("inference_library"), str):
        found["inference_library"] = info["inference_library"]
        found["inference_library_version"] = _version(info["inference_library"])
    return found


def as_json(value: Any) -> str:
    """Return numbers, words and tensors as JSON; anything else by its repr."""
    return json.dumps(value, default=lambda v: array(v).tolist() if isinstance(v, Tensor) else repr(v))


def array(value: Tensor) -> np.ndarray:
    """Return the values on the CPU; numbers that NumPy lacks, such as bfloat16, as float32."""
    value = value.detach().cpu()
    return (value.float() if value.dtype in {torch.bfloat16, torch.float16} else value).numpy()


def constants(fit: Fit) -> tuple[dict[str, Tensor], dict[str, Sequence[str]]]:
    """Return what the program conditions on: the data's given values, or tensors among the arguments.

    Returns: values by name, and the names of their axes where these are known.
    """
    if isinstance(fit.data, Data):
        given = dict(fit.data.given)
        return given, {k: ["rows", *(f"{k}_dim_{i}" for i in range(1, v.ndim))] for k, v in given.items()}
    found: dict[str, Tensor] = {}
    for i, value in enumerate(fit.args):
        items = value.items() if isinstance(value, Mapping) else [(f"arg_{i}", value)]
        found |= {str(k): v for k, v in items if isinstance(v, Tensor)}
    return found | {k: v for k, v in fit.kwargs.items() if isinstance(v, Tensor)}, {}


def site_name(variable: xr.DataArray) -> str:
    """Return the site of a variable: its name, but for a slash, which netCDF keeps for groups."""
    return str(variable.attrs.get("site", variable.name))


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:  # run from its source, without being installed
        return "unknown"


def _variable(site: str) -> str:
    return site.replace("/", ".")
