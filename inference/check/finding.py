"""One thing that is wrong with an answer, and where."""

from typing import NamedTuple

import numpy as np
import xarray as xr

MANY = 10  # elements of a site above which the worst is not all that is said


class Finding(NamedTuple):
    """One thing that is wrong (`error`), doubtful (`warning`) or worth knowing (`note`).

    site: where, with the place inside the site when it is one; empty when it is the whole run.
    number: the figure that was judged.
    sentence: what it means and what to do next.
    """

    level: str
    site: str
    number: float
    sentence: str


def extreme(table: xr.DataArray, largest: bool) -> tuple[str, float] | None:
    """Return the worst element's name and number; None where no element has one."""
    values = np.asarray(table.values, dtype=float)
    if not np.isfinite(values).any():
        return None
    flat = int(np.nanargmax(values) if largest else np.nanargmin(values))
    index = np.unravel_index(flat, values.shape)
    inside = ", ".join(str(table[d].values[i]) for d, i in zip(table.dims, index, strict=True))
    return (f"{table.name}[{inside}]" if inside else str(table.name)), float(values.flat[flat])


def typical(table: xr.DataArray) -> str:
    """Say what half of many elements are below, since the worst one tells little of the others; of few, nothing."""
    values = np.asarray(table.values, dtype=float)
    values = values[np.isfinite(values)]
    return f" (half of {values.size} are below {np.median(values):.3f})" if values.size >= MANY else ""
