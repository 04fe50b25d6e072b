"""Pictures of answers: each function returns a matplotlib Figure, and works without a screen.

What shows chains (`trace`, `ranks`, `energy`, `evolution`) is drawn by arviz_plots; see `chains.py`. The others are
our own, and why: ArviZ has no picture of an optimiser's climb or of a mixture's ellipses; `plot_forest` puts
quantities of different units on one axis, where `compare` gives each its own; `plot_ppc_dist` pools the columns
of a row into one density, where `predictive` has a panel a column, and counts as shares. Whatever is not here
is one call away: every arviz_plots function takes `fit.to_datatree()`.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from inference.base import Fit, Unsupported
from inference.calibration import Calibration
from inference.check import named, table
from inference.datatree import to_datatree
from inference.plots.bands import bands
from inference.plots.chains import energy, evolution, ranks, trace
from inference.plots.ellipses import ellipses
from inference.plots.panels import PANELS, columns_of, density_of, in_units, page
from inference.plots.profiles import contours, profiles
from inference.plots.regions import regions
from inference.plots.reliability import reliability
from inference.plots.trajectories import orbits, states, trajectories

__all__ = [
    "bands", "calibration", "compare", "contours", "ellipses", "energy", "evolution", "objective", "orbits",
    "predictive", "profiles", "ranks", "regions", "reliability", "states", "trace", "trajectories",
]  # fmt: skip


def objective(fits: Mapping[str, Fit] | Sequence[Fit]) -> Figure:
    """Return what each optimiser climbed, against its steps; fits without such a trace are left out.

    Raises: Unsupported when none has a trace.
    """
    climbed = {name: fit.trace for name, fit in named(fits).items() if fit.trace}
    if not climbed:
        raise Unsupported("no fit has a trace of an objective")
    with page(1, len(climbed), width=3.6 * len(climbed), height=3) as (figure, axes):
        for axis, (name, traces) in zip(axes[0], climbed.items(), strict=True):
            low, high = math.inf, -math.inf
            shown = {what: values for what, values in traces.items() if what != "log_prior"}  # of another size
            for i, (what, values) in enumerate(shown.items()):
                y = values.double().numpy()
                style = ("-", "--", "-.", ":")[i % 4]
                axis.plot(np.arange(len(y)), y, style, label=what.replace("_", " "), lw=1.3)
                finite = y[np.isfinite(y)]
                low, high = min(low, float(np.quantile(finite, 0.1))), max(high, float(finite.max()))
            margin = 0.08 * (high - low) or 1.0
            axis.set(title=name, xlabel="step", ylabel="log density (nats)", ylim=(low - margin, high + margin))
            axis.legend(loc="center right")
    return figure


def predictive(fit: Fit, num_datasets: int = 50) -> Figure:
    """Return the observed values' density, a panel a column, over those of data sets that the fit predicts."""
    tree = to_datatree(fit, log_likelihood=False, prior=0)
    panels = []
    for name, observed in tree["observed_data"].data_vars.items():
        drawn = tree["posterior_predictive"][str(name)].stack(sample=("chain", "draw"))
        pick = np.linspace(0, drawn.sizes["sample"] - 1, min(num_datasets, drawn.sizes["sample"])).astype(int)
        replicated = drawn.isel(sample=np.unique(pick)).transpose("sample", ...).to_numpy()
        panels += columns_of(str(name), observed, replicated)
    panels = panels[:PANELS]
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    with page(rows, columns, width=3.8 * columns, height=2.8) as (figure, axes):
        for axis, (name, values, replicated) in zip(axes.flat, panels, strict=False):
            whole = bool((replicated == np.round(replicated)).all())
            for i, one in enumerate(replicated):
                axis.plot(*density_of(one, whole), color="C0", alpha=0.25, lw=0.7, label=None if i else "predicted")
            axis.plot(*density_of(values, whole), color="black", lw=1.8, label="observed")
            axis.set(xlabel=in_units(fit, name), ylabel="share" if whole else "density")
        legend = axes.flat[0].legend()
        for handle in legend.legend_handles:
            handle.set_alpha(1)
        figure.suptitle(f"{fit.method}: posterior predictive check", fontsize=11)
    return figure


def compare(fits: Mapping[str, Fit] | Sequence[Fit], var_names: Sequence[str] | None = None) -> Figure:
    """Return a panel a quantity: each fit's mean and 89% interval; a point has no interval."""
    found = table(fits, var_names=var_names)
    quantities = list(dict.fromkeys(found.index.get_level_values("quantity")))[:PANELS]
    names = list(dict.fromkeys(found.index.get_level_values("method")))
    ends = [c for c in found.columns if str(c).endswith(("_lb", "_ub"))]
    columns = min(4, len(quantities))
    rows = math.ceil(len(quantities) / columns)
    with page(rows, columns, width=2.5 * columns + 1, height=0.6 + 0.22 * len(names)) as (figure, axes):
        for i, (axis, quantity) in enumerate(zip(axes.flat, quantities, strict=False)):
            one = found.loc[quantity]
            for place, name in enumerate(names):
                if name in one.index:
                    low, high = (float(one.loc[name, end]) for end in ends)
                    axis.plot([low, high], [place, place], color=f"C{place % 10}", lw=2)
                    axis.plot(float(one.loc[name, "mean"]), place, "o", color=f"C{place % 10}", ms=5)
            axis.set(yticks=range(len(names)), ylim=(len(names) - 0.5, -0.5), title=quantity)
            axis.set_yticklabels(names if i % columns == 0 else [])
            axis.xaxis.set_major_locator(MaxNLocator(4))
    return figure


def calibration(result: Calibration) -> Figure:
    """Return each quantity's ranks over the simulated data sets, with the 99% band of uniform ones."""
    panels = [
        (f"{name}{list(i) if i else ''}", value[(slice(None), *i)].numpy())
        for name, value in result.ranks.items()
        for i in np.ndindex(*value.shape[1:])
    ][:PANELS]
    columns = min(4, len(panels))
    rows = math.ceil(len(panels) / columns)
    with page(rows, columns, width=2.8 * columns, height=2.2) as (figure, axes):
        for axis, (name, values) in zip(axes.flat, panels, strict=False):
            bins = max(2, min(20, len(values) // 5))
            expected = len(values) / bins
            axis.axhspan(expected - 2.58 * expected**0.5, expected + 2.58 * expected**0.5, color="0.88")
            axis.hist(values, bins=bins, range=(-0.5, result.num_draws + 0.5))
            axis.set(title=name, xlabel="rank of the truth", ylabel="data sets")
    return figure
