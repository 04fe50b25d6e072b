"""What fits predict along one input: the mean, what draws disagree about, and noise; near and far from the data."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from inference.base import Fit, Unsupported
from inference.check import named
from inference.outcomes import outcomes
from inference.plots.panels import page
from ppmodels.base import Data

WIDEST = 3  # panels beside one another


def bands(fits: Mapping[str, Fit] | Sequence[Fit], grid: Data, along: Tensor, label: str = "x") -> Figure:
    """Return a panel for each fit: its mean along a line of inputs, with bands of two standard deviations.

    The inner band is the epistemic part, from draws that disagree; the outer one adds the noise. Of classes, each
    class's probability with its epistemic band. Data that the fits share are shown where they have one input.

    grid: rows to predict. along: their place on the horizontal axis, (N,), ascending. label: that axis's name.
    """
    fits = named(fits)
    columns = min(WIDEST, len(fits))
    with page(-(-len(fits) // columns), columns, width=3.6 * columns, height=2.8) as (figure, axes):
        place = along.numpy()
        for i, (axis, (name, fit)) in enumerate(zip(axes.flat, fits.items(), strict=False)):
            seen = outcomes(fit, grid)
            mean = seen.location.numpy()
            inner, outer = (2 * part.sqrt().numpy() for part in (seen.epistemic, seen.total))
            if seen.classes:
                for k in range(mean.shape[1]):
                    low, high = (np.clip(mean[:, k] + s * inner[:, k], 0, 1) for s in (-1, 1))
                    axis.fill_between(place, low, high, color=f"C{k}", alpha=0.25, lw=0)
                    axis.plot(place, mean[:, k], color=f"C{k}", label=f"class {k}")
            elif mean.ndim == 1:
                axis.fill_between(place, mean - outer, mean + outer, color="C0", alpha=0.18, lw=0, label="with noise")
                axis.fill_between(place, mean - inner, mean + inner, color="C0", alpha=0.4, lw=0, label="epistemic")
                axis.plot(place, mean, color="C0", label="mean")
            else:
                raise Unsupported(f"{seen.site!r} has several columns; bands are of one")
            _rows(axis, fit, seen.site, seen.classes)
            axis.set_title(name, loc="left")
            axis.set(xlim=(place[0], place[-1]))
            if i % columns == 0:
                axis.set_ylabel("probability" if seen.classes else seen.site)
            if i >= len(fits) - columns:
                axis.set_xlabel(label)
        limits = [axis.get_ylim() for axis in axes.flat[: len(fits)]]
        for axis in axes.flat:  # the same scale, so that widths can be compared
            axis.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)))
    return figure


def _rows(axis: object, fit: Fit, site: str, classes: bool) -> None:
    """The data, where they have a single input."""
    data = fit.data
    if data is None or classes or len(data.given) != 1:
        return
    (x,) = data.given.values()
    if x[0].numel() == 1:
        axis.plot(x.reshape(-1), data.observed[site], ".", color="black", ms=3, label="data")  # pyright: ignore
