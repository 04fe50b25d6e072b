"""What pictures are made of: a page of panels, the elements that fill it, and their densities."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from arviz_stats.base.array import array_stats
from matplotlib.figure import Figure

from inference.base import Fit

PANELS = 24  # of one picture at most: more cannot be read
CHAINS = 16  # shown at most, the first ones
STYLE: dict[str, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "savefig.dpi": 150,
}


@contextmanager
def page(rows: int, columns: int, width: float, height: float) -> Iterator[tuple[Figure, Any]]:
    """Yield a figure of so many panels, (rows, columns), in our style; empty panels are taken away."""
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(
            rows, columns, figsize=(width, height * rows + 0.4), squeeze=False, layout="constrained"
        )
        yield figure, axes
        for axis in axes.flat:
            axis.set_visible(axis.has_data())
        plt.close(figure)


def elements_of(posterior: xr.Dataset) -> dict[str, np.ndarray]:
    """Return draws by element, (chain, draw), named by site and labels; none twice, and one page at most."""
    found: dict[str, np.ndarray] = {}
    for name, values in posterior.data_vars.items():
        inside = [d for d in values.dims if d not in ("chain", "draw")]
        for index in np.ndindex(*(values.sizes[d] for d in inside)):
            one = values.isel(dict(zip(inside, index, strict=True)))
            labels = ", ".join(str(one[d].values) for d in inside)
            draws = one.transpose("chain", "draw").to_numpy().astype(float)
            if not any(np.array_equal(draws, other) for other in found.values()):  # as in a symmetric matrix
                found[f"{name}[{labels}]" if labels else str(name)] = draws
            if len(found) == PANELS:
                return found
    return found


def columns_of(name: str, observed: xr.DataArray, drawn: np.ndarray) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Return a panel for each element of the last axis, where it is an event's, else one for all."""
    values = observed.to_numpy()
    if values.ndim < 2:
        return [(name, values.reshape(-1), drawn.reshape(len(drawn), -1))]
    labels = [str(label) for label in observed[observed.dims[-1]].values]
    generic = str(observed.dims[-1]).startswith(f"{name}_dim_")
    titles = [f"{name}[{label}]" if generic else label for label in labels]
    return [
        (title, values[..., i].reshape(-1), drawn[..., i].reshape(len(drawn), -1)) for i, title in enumerate(titles)
    ]


def in_units(fit: Fit, label: str) -> str:
    """Return the label with its unit behind it, where the data say one."""
    unit = fit.data.units.get(label) if fit.data else None
    return f"{label} ({unit})" if unit else label


def density_of(values: np.ndarray, whole: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return a density estimate, or the share of each value where these are whole numbers, or all the same."""
    values = np.asarray(values, dtype=float).reshape(-1)
    if whole or np.ptp(values) == 0:
        places, counts = np.unique(values, return_counts=True)
        return places, counts / len(values)
    grid, density, _ = array_stats.kde(values)
    return grid, density
