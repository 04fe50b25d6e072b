"""Spike times and epochs as people have them: arrays, pynapple, NWB."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np


def spike_times(source: Any) -> dict[str, np.ndarray]:
    """Return spike times in seconds by the neuron's name, each (spikes,), float64.

    source: a mapping from name to times, a sequence of arrays, a pynapple `TsGroup`, a `pynwb` file or units table,
        or the path of an NWB file.

    Raises: TypeError for anything else; ImportError where an NWB file needs pynwb; ValueError where it has no units.
    """
    if isinstance(source, str | Path):
        return _from_nwb(Path(source))
    if hasattr(source, "units") and hasattr(source, "session_start_time"):
        source = source.units
        if source is None:
            raise ValueError("this NWB file has no units table")
    if hasattr(source, "get_unit_spike_times") or hasattr(source, "spike_times_index"):
        return _from_units(source)
    if isinstance(source, Mapping):  # a pynapple TsGroup, of pynapple Ts, is one
        return {str(name): _times(source[name]) for name in source.keys()}  # noqa: SIM118 (a TsGroup iterates otherwise)
    if isinstance(source, Iterable) and getattr(source, "ndim", 2) != 1:
        return {str(n): _times(one) for n, one in enumerate(source)}
    raise TypeError(f"spikes come as times by neuron, a TsGroup or NWB units; got {type(source).__name__}")


def epochs_of(source: Any) -> list[tuple[float, float]]:
    """Return (start, end) in seconds of a pynapple `IntervalSet`, a table with such columns, or pairs."""
    for start, end in (("start", "end"), ("start_time", "stop_time")):
        if hasattr(source, start) and hasattr(source, end):
            pairs = zip(np.asarray(getattr(source, start)[:]), np.asarray(getattr(source, end)[:]), strict=True)
            return [(float(a), float(b)) for a, b in pairs]
    pairs = np.asarray(source, dtype=float)
    if pairs.ndim == 1 and len(pairs) == 2:
        pairs = pairs[None]
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise ValueError(f"epochs are (start, end) pairs in seconds; their shape is {pairs.shape}")
    return [(float(a), float(b)) for a, b in pairs]


def _times(value: Any) -> np.ndarray:
    value = getattr(value, "t", value)  # pynapple's Ts keeps its times there
    return np.asarray(value, dtype=float).reshape(-1)


def _from_nwb(path: Path) -> dict[str, np.ndarray]:
    try:
        from pynwb import NWBHDF5IO  # heavy, and only for this  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError(f"reading {path} needs pynwb: pip install 'ppmodels[nwb]'") from None
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    reader: Any = NWBHDF5IO
    with reader(str(path), "r") as file:
        units = file.read().units
        if units is None:
            raise ValueError(f"{path} has no units table")
        return _from_units(units)


def _from_units(units: Any) -> dict[str, np.ndarray]:
    """A units table's spike times, by its ids."""
    return {str(name): _times(units["spike_times"][row]) for row, name in enumerate(units.id[:])}
