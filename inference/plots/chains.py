"""Pictures of chains, drawn by arviz_plots: one panel an element, in our style, on as many pages as can be read."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import arviz_plots
import matplotlib as mpl
import matplotlib.pyplot as plt
import xarray as xr
from arviz_base import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from inference.base import Fit, Unsupported
from inference.datatree import to_datatree
from inference.plots.panels import CHAINS, STYLE, elements_of

LONG = 20  # letters of a name above which a row has fewer panels
SIMULATED = 300  # runs from which the rank bands are taken


def trace(fit: Fit, var_names: Sequence[str] | None = None) -> Figure:
    """Return each element's draws: their density, and their course, a colour a chain.

    var_names: sites; by default all, as many elements as can be read.

    Raises: Unsupported when there is one draw.
    """
    tree = _chains(fit, var_names)
    chains, draws = (tree["posterior"].sizes[d] for d in ("chain", "draw"))
    if draws < 2:
        raise Unsupported(f"{fit.method} has one draw, which has no course")
    size = (9.0, 0.5 + 1.15 * len(tree["posterior"].data_vars))
    lines: Any = {"trace": {"width": 0.4, "alpha": 0.8}, "dist": {"width": 1.0}}
    figure = _drawn(arviz_plots.plot_trace_dist, tree, size, compact=False, visuals=lines)
    for axis in figure.axes:  # the densities say already what is drawn, and long names do not fit beside a course
        axis.set_ylabel("")
        axis.set_xlabel(axis.get_xlabel().replace("Draw", "draw"))
    figure.suptitle(f"{fit.method}: {draws} draws of {_counted(chains)}", fontsize=11)
    return figure


def ranks(fit: Fit, var_names: Sequence[str] | None = None) -> Figure:
    """Return each element's ranks by chain: the share of draws below a rank, less the rank.

    Chains that agree stay in the grey band with 99% probability, all at once, were draws independent.

    Raises: Unsupported for one chain, which has nothing to be ranked against.
    Source: Sailynoja, Buerkner and Vehtari (2022), Statistics and Computing 32.
    """
    tree = _chains(fit, var_names)
    chains, draws = (tree["posterior"].sizes[d] for d in ("chain", "draw"))
    if chains < 2 or draws < 4:
        raise Unsupported(f"{fit.method} has {_counted(chains)} of {draws} draws; ranks compare chains")
    columns, size = _grid(tree)
    bands = {"ecdf_pit": {"n_simulations": SIMULATED}}
    figure = _drawn(arviz_plots.plot_rank, tree, size, ci_prob=0.99, stats=bands, col_wrap=columns)
    figure.suptitle(f"{fit.method}: ranks of {_counted(chains)}, with the 99% band of chains that agree", fontsize=11)
    return figure


def evolution(fit: Fit, var_names: Sequence[str] | None = None) -> Figure:
    """Return each element's bulk and tail ESS as draws come in: straight lines, where a longer run will help.

    Raises: Unsupported when there are too few draws, or independent ones.
    """
    tree = _chains(fit, var_names)
    draws = tree["posterior"].sizes["draw"]
    if "num_warmup" not in fit.info or draws < 100:
        raise Unsupported(f"{fit.method} has no chain of 100 draws whose effective size could grow")
    columns, size = _grid(tree)
    figure = _drawn(arviz_plots.plot_ess_evolution, tree, size, col_wrap=columns)
    handles = [Line2D([], [], color=color, marker="o") for color in ("C0", "C1")]
    figure.legend(handles, ["bulk", "tail"], loc="outside upper right", ncols=2, frameon=False)
    figure.suptitle(f"{fit.method}: effective sample size; 400 is dashed", fontsize=11)
    return figure


def energy(fit: Fit) -> Figure:
    """Return the energies of the draws beside their changes: alike, where the momentum moves chains freely; and BFMI.

    Raises: Unsupported when the method keeps no energy.
    Source: Betancourt (2016), arXiv:1604.00695.
    """
    if "energy" not in fit.stats:
        raise Unsupported(f"{fit.method} keeps no energy")
    tree = to_datatree(fit, log_likelihood=False, prior=0, posterior_predictive=False)
    figure = _drawn(arviz_plots.plot_energy, tree, (8.0, 3.2))
    left, right = figure.axes[:2]
    left.set_xlabel("BFMI; below 0.3 (dashed) chains explore slowly")
    right.set_xlabel("energy, less its mean (nats)")
    figure.suptitle(f"{fit.method}: energy", fontsize=11)
    return figure


def _chains(fit: Fit, var_names: Sequence[str] | None) -> xr.DataTree:
    """The posterior with one scalar variable an element, none twice, and no more chains than can be told apart."""
    tree = to_datatree(fit, log_likelihood=False, prior=0, posterior_predictive=False)
    found = tree["posterior"].to_dataset().isel(chain=slice(0, CHAINS))
    elements = elements_of(found[list(var_names)] if var_names else found)
    whole = {name: (("chain", "draw"), draws) for name, draws in elements.items()}
    return xr.DataTree.from_dict({"posterior": xr.Dataset(whole, {d: found[d] for d in ("chain", "draw")})})


def _drawn(plot: Callable[..., Any], tree: xr.DataTree, size: tuple[float, float], **options: Any) -> Figure:
    """What an arviz_plots function draws, in our style, with room for every label."""
    with mpl.rc_context(STYLE), rc_context({"plot.max_subplots": None}):
        placed = {"layout": "constrained", "figsize": size}
        collection = plot(tree, backend="matplotlib", figure_kwargs=placed, **options)
    figure = collection.viz["figure"].item()
    plt.close(figure)
    return figure


def _grid(tree: xr.DataTree) -> tuple[int, tuple[float, float]]:
    """Panels a row, and the size of the page."""
    names = list(map(str, tree["posterior"].data_vars))
    columns = min(4 if max(map(len, names)) < LONG else 3, len(names))
    return columns, ((3.4 if columns == 3 else 2.6) * columns, 0.6 + 1.8 * math.ceil(len(names) / columns))


def _counted(chains: int) -> str:
    return f"{chains} chain{'s' if chains > 1 else ''}"
