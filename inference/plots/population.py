"""Pictures of populations: filters with bands and gains, who drives whom, KS plots, rasters with predicted rates."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from inference.base import Fit, Unsupported
from inference.datatree import to_datatree
from inference.plots.panels import page

MOST = 12  # panels of filters
NEURONS = 40  # of a coupling matrix whose rows are named


def filters(fit: Fit | xr.DataTree, name: str = "history_filter", *, gain: bool = True, prob: float = 0.95) -> Figure:
    """Return a panel a neuron of its filters over the lag in ms: the posterior median in its credible band.

    name: "stimulus_filter", "history_filter" or "coupling_filter"; of couplings each line is a sender.
    gain: an axis on the right that says by how much a spike multiplies the rate, exp(filter), for the exp link.

    Raises: Unsupported where there are no such draws.
    """
    draws = _draws(fit, name)
    lag = next(d for d in draws.dims if str(d).endswith("lag"))
    ms = 1000 * draws[lag].values.astype(float)
    posts = list(draws["post"].values)[:MOST]
    columns = min(4, len(posts))
    rows = math.ceil(len(posts) / columns)
    tail = (1 - prob) / 2
    with page(rows, columns, width=2.9 * columns + 0.4, height=2.2) as (figure, axes):
        for i, (axis, post) in enumerate(zip(axes.flat, posts, strict=False)):
            one = draws.sel(post=post).stack(sample=("chain", "draw"))
            for k, (label, values) in enumerate(_lines(one, lag, post)):
                low, middle, high = np.quantile(values, [tail, 0.5, 1 - tail], axis=-1)
                axis.fill_between(ms, low, high, color=f"C{k % 10}", alpha=0.25, lw=0)
                axis.plot(ms, middle, color=f"C{k % 10}", lw=1.3, label=label)
            axis.axhline(0, color="0.6", lw=0.6, zorder=0)
            axis.set(title=f"neuron {post}")
            axis.set_xlabel("lag (ms)" if i + columns >= len(posts) else "")
            axis.set_ylabel("log gain" if i % columns == 0 else "")
            if gain:
                right = axis.secondary_yaxis("right", functions=(np.exp, _log))
                right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                right.yaxis.set_major_formatter("{x:g}")
                right.set_ylabel("gain" if i % columns == columns - 1 or i == len(posts) - 1 else "")
        shown = [axis.get_ylim() for axis in axes.flat[: len(posts)]]  # one scale, so that neurons can be compared
        for axis in axes.flat[: len(posts)]:
            axis.set_ylim(min(low for low, _ in shown), max(high for _, high in shown))
        handles, labels = axes.flat[0].get_legend_handles_labels()
        if 1 < len(labels) <= 8:
            figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
        figure.suptitle(f"{name.replace('_', ' ')}: median and {prob:.0%} band", fontsize=11)
    return figure


def couplings(fit: Fit | xr.DataTree, *, probability: float = 0.975) -> Figure:
    """Return the coupling matrix, the sum of each filter, and the probability that it excites.

    A dot marks pairs whose sign has at least this probability.
    """
    draws = _draws(fit, "coupling_filter").sum("lag").stack(sample=("chain", "draw"))
    draws = draws.transpose("post", "pre", "sample").to_numpy()
    names = [str(v) for v in _draws(fit, "coupling_filter")["post"].values]
    alone = np.eye(len(names), dtype=bool)
    mean = np.where(alone, np.nan, draws.mean(-1))
    positive = np.where(alone, np.nan, (draws > 0).mean(-1))
    sure = np.nan_to_num(np.maximum(positive, 1 - positive)) >= probability
    size = max(3.4, min(6.0, 0.3 * len(names) + 1.5))
    with page(1, 2, width=2 * size + 1.2, height=size) as (figure, axes):
        top = float(np.nanmax(np.abs(mean))) or 1.0
        shown = (
            (axes[0][0], mean, (-top, top), "sum over the lags (log gain of a spike)", "coupling"),
            (axes[0][1], positive, (0.0, 1.0), "P(excites)", "probability of the sign"),
        )
        for axis, values, limits, label, title in shown:
            axis.set_facecolor("0.75")  # the diagonal, which is no coupling
            image = axis.imshow(values, cmap="RdBu_r", vmin=limits[0], vmax=limits[1])
            axis.set(title=title, xlabel="from neuron", ylabel="onto neuron")
            if len(names) <= NEURONS:
                axis.set_xticks(range(len(names)), names, rotation=90 if len(names) > 10 else 0)
                axis.set_yticks(range(len(names)), names)
            figure.colorbar(image, ax=axis, label=label, shrink=0.8)
        places = np.argwhere(sure)
        axes[0][0].scatter(places[:, 1], places[:, 0], s=9, color="black", label=f"sign sure to {probability:.1%}")
        if len(places):
            figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower left", fontsize=8)
    return figure


def time_rescaling(uniforms: dict[str, Any] | Sequence[Any]) -> Figure:
    """Return the KS plot of rescaled intervals: their distribution against the uniform one, with its 95% band.

    uniforms: by name, the intervals as uniforms, (intervals,); at most four are told apart by the legend.
    """
    named = uniforms if isinstance(uniforms, dict) else {str(i): value for i, value in enumerate(uniforms)}
    with page(1, 1, width=4.6, height=4.2) as (figure, axes):
        axis = axes[0][0]
        fewest = min(len(value) for value in named.values())
        band, grid = 1.36 / math.sqrt(fewest), np.array([0.0, 1.0])
        axis.fill_between(grid, grid - band, grid + band, color="0.88", lw=0, label=f"95% band, {fewest} intervals")
        axis.plot(grid, grid, color="0.5", lw=0.8)
        for name, values in named.items():
            value = np.sort(np.asarray(values, dtype=float))
            share = np.arange(1, len(value) + 1) / len(value)
            axis.step(value, share, where="post", lw=1.3, label=f"{name}, D = {_distance(value):.3f}")
        axis.set(
            xlim=(0, 1),
            ylim=(0, 1),
            xlabel="rescaled interval u",
            ylabel="share of intervals below u",
            title="time rescaling",
        )
        axis.set_aspect("equal")
        axis.legend(loc="upper left")
    return figure


def raster(counts: Any, rate: Any, bin_size: float, *, trial: int = 0, names: Sequence[Any] = ()) -> Figure:
    """Return spikes of one trial over the predicted rate in Hz, a row a neuron.

    counts, rate: (R, T, N), spikes a bin and Hz. names: of the neurons.
    """
    y, hz = (np.asarray(value, dtype=float)[trial] for value in (counts, rate))
    time, neurons = bin_size * np.arange(len(y)), y.shape[1]
    with page(neurons, 1, width=8, height=max(0.5, min(1.2, 8 / neurons))) as (figure, axes):
        for n, axis in enumerate(axes[:, 0]):
            axis.plot(time, hz[:, n], color="C0", lw=0.9)
            spikes = time[y[:, n] > 0]
            top = float(hz[:, n].max()) or 1.0
            axis.vlines(spikes, 1.08 * top, 1.3 * top, color="black", lw=0.7)
            axis.set(ylim=(0, 1.35 * top), xlim=(0, time[-1] + bin_size))
            axis.set_ylabel(str(names[n]) if len(names) else str(n), rotation=0, ha="right", va="center")
            axis.tick_params(labelbottom=n == neurons - 1)
        axes[-1, 0].set_xlabel("time in the trial (s)")
        figure.suptitle(f"trial {trial}: spikes above the predicted rate (Hz)", fontsize=11)
    return figure


def _distance(ordered: np.ndarray) -> float:
    """Kolmogorov's and Smirnov's, to the uniform."""
    share = np.arange(1, len(ordered) + 1) / len(ordered)
    return float(np.maximum(share - ordered, ordered - share + 1 / len(ordered)).max())


def _draws(fit: Fit | xr.DataTree, name: str) -> xr.DataArray:
    tree = to_datatree(fit, log_likelihood=False, prior=0, posterior_predictive=False) if isinstance(fit, Fit) else fit
    posterior = tree["posterior"].to_dataset()
    if name not in posterior:
        raise Unsupported(f"the posterior holds no {name}; a coupled model keeps its filters with lags=True")
    return posterior[name]


def _lines(one: xr.DataArray, lag: Any, post: Any) -> list[tuple[str, np.ndarray]]:
    """Label and values (lag, sample) of each line of a panel."""
    others = [d for d in one.dims if d not in (lag, "sample")]
    if not others:
        return [("", one.transpose(lag, "sample").to_numpy())]
    (axis,) = others
    labels = [v for v in one[axis].values if axis != "pre" or v != post]
    word = "from" if axis == "pre" else str(axis)
    return [(f"{word} {v}", one.sel({axis: v}).transpose(lag, "sample").to_numpy()) for v in labels]


def _log(gain: Any) -> Any:
    return np.log(np.maximum(gain, 1e-12))
