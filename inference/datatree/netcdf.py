"""One netCDF file a fit: the tree that ArviZ reads, and one array of bytes from which the fit is made again.

The bytes are torch's format for plain containers of tensors and numbers, read without running any code.
"""

import copy
import dataclasses
import io
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import ppmodels
from inference.base import Draws, Fit
from inference.datatree.groups import site_name
from ppmodels.base import Data, Model

REMAINDER = "remainder"  # the group that holds the bytes
FORMAT = 1


def write(fit: Fit, tree: xr.DataTree, path: Path) -> Path:
    """Write the tree and the rest of the fit beside `path`, then rename."""
    content = _bytes(_remainder(fit))
    whole = tree.copy()
    whole[REMAINDER] = xr.DataTree(xr.Dataset({"bytes": ("byte", np.frombuffer(content, np.uint8))}))
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        whole.to_netcdf(beside, engine="h5netcdf")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def load(path: str | Path, *, model: Any = None, args: tuple[Any, ...] | None = None, kwargs: Any = None) -> Fit:
    """Read a fit that `save` wrote: draws, statistics, traces, information and state as they were.

    model: the plain program that was fitted, or a model from outside the collection; a model of the
        collection is made again from its name and fields.
    args, kwargs: what the program was called with, where it was something else than tensors and numbers.

    Raises: ValueError when the file is not such a fit, or when the program or its arguments are needed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        if REMAINDER not in tree.children:
            raise ValueError(f"{path} is a netCDF file, but not one that Fit.save wrote")
        content = tree[REMAINDER]["bytes"].to_numpy().tobytes()
        rest = torch.load(io.BytesIO(content), weights_only=True)
        groups = {name: _tensors(tree, name, rest["dtypes"]) for name in _GROUPS}
    if rest["args"] is None and args is None:
        raise ValueError(f"{path} does not hold the program's arguments: load(path, model=..., args=...)")
    return Fit(
        model=_model(rest["model"], model, path),
        args=_decoded(rest["args"]) if args is None else tuple(args),
        kwargs=_decoded(rest["kwargs"]) if kwargs is None else dict(kwargs),
        method=rest["method"],
        info=rest["info"],
        state=rest["state"],
        **{field: groups[group] for group, field in _GROUPS.items()},
    )


_GROUPS = {
    "posterior": "draws",
    "sample_stats": "stats",
    "fit": "trace",
    "warmup_posterior": "warmup_draws",
    "warmup_sample_stats": "warmup_stats",
}


def _remainder(fit: Fit) -> dict[str, Any]:
    """What the groups do not hold, in plain containers."""
    dtypes = {
        group: {name: value.dtype for name, value in getattr(fit, field).items()} for group, field in _GROUPS.items()
    }
    return {
        "format": FORMAT,
        "method": fit.method,
        "dtypes": dtypes,
        "info": dict(fit.info),
        "state": fit.state,
        "model": _described(fit.model),
        **_arguments(fit),
    }


def _bytes(content: dict[str, Any]) -> bytes:
    """The content in torch's format, each part read back once, so that what is written can be read."""
    for name, value in content.items():
        part = io.BytesIO()
        try:
            torch.save(value, part)
            part.seek(0)
            torch.load(part, weights_only=True)
        except (UnpicklingError, AttributeError, TypeError, RuntimeError) as reason:
            raise TypeError(f"the fit's {name} cannot be stored: {str(reason).splitlines()[0]}") from reason
    whole = io.BytesIO()
    torch.save(content, whole)
    return whole.getvalue()


def _arguments(fit: Fit) -> dict[str, Any]:
    """Arguments as tensors, numbers and containers of them; None where they are anything else."""
    found = {
        "args": tuple(_encoded(a) for a in fit.args),
        "kwargs": {k: _encoded(v) for k, v in fit.kwargs.items()},
    }
    try:
        _bytes(found)
    except TypeError:
        return {"args": None, "kwargs": {}}
    return found


def _encoded(value: Any) -> Any:
    if not isinstance(value, Data):
        return value
    fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    plain = {k: dict(v) if isinstance(v, Mapping) else v for k, v in fields.items()}
    plain["coords"] = {k: [c.item() if hasattr(c, "item") else c for c in v] for k, v in value.coords.items()}
    return {"Data": plain}


def _decoded(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_decoded(v) for v in value)
    if isinstance(value, dict) and set(value) == {"Data"}:
        fields = value["Data"]
        return Data(**{**fields, "coords": {k: tuple(v) for k, v in fields["coords"].items()}})
    return {k: _decoded(v) for k, v in value.items()} if isinstance(value, dict) else value


def _described(model: Any) -> dict[str, Any]:
    """Name, fields and learned tensors of a model of the collection; only the name of anything else."""
    name = type(model).__module__.rpartition(".")[2]
    if not isinstance(model, Model) or name not in ppmodels.names() or ppmodels.load(name) is not type(model):
        return {"name": None, "title": getattr(model, "__name__", type(model).__name__), "learned": {}}
    fields = {f.name: getattr(model, f.name) for f in dataclasses.fields(model) if f.init}  # pyright: ignore
    learned = {k: v.state_dict() for k, v in vars(model).items() if isinstance(v, nn.Module) and k not in fields}
    if any(isinstance(leaf, nn.Module) for leaf in tree_leaves(list(fields.values()))):  # networks of the user's own
        return {"name": None, "title": type(model).__name__, "learned": learned}
    return {"name": name, "fields": fields, "learned": learned}


def _model(described: dict[str, Any], given: Any, path: Path) -> Any:
    """The model that was described, or a copy of the one given, with what was learned."""
    if given is None and described["name"] is None:
        raise ValueError(f"{path} holds a fit of {described['title']}, which must be given: load(path, model=...)")
    learned = described.get("learned", {})
    if given is not None and not learned:
        return given
    model = ppmodels.load(described["name"])(**described["fields"]) if given is None else copy.deepcopy(given)
    for name, state in learned.items():
        try:
            getattr(model, name).load_state_dict(state)
        except (AttributeError, RuntimeError):
            raise ValueError(f"{path} holds another model: its {name} does not fit the one given") from None
    return model


def _tensors(tree: xr.DataTree, group: str, dtypes: Mapping[str, Mapping[str, torch.dtype]]) -> Draws:
    found: dict[str, Tensor] = {}
    if group in tree.children:
        for variable in tree[group].data_vars.values():
            name = site_name(variable)
            if name not in dtypes[group]:
                continue  # a computed site that the tree has added
            found[name] = torch.from_numpy(variable.to_numpy().copy()).to(dtypes[group][name])
    return {name: found[name] for name in dtypes[group]}
