"""Profile likelihoods: how far the objective falls as one number moves away from its best value."""

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from inference.base import Fit
from inference.information import Number, curve, ellipse, profile, region, wald
from inference.plots.panels import page


def profiles(fit: Fit, sites: Sequence[str], level: float = 0.95, names: Sequence[str] | None = None) -> Figure:
    """Return a panel a site that is one number: its profile, the parabola that Wald's interval takes it for, and both.

    names: what to call the sites on their axes, units included.
    """
    fall = float(torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64))) ** 2 / 2
    with page(1, len(sites), width=3.8 * len(sites), height=3.2) as (figure, axes):
        for axis, site, name in zip(axes[0], sites, names or sites, strict=True):
            values, falls = curve(fit, site)
            ends, straight = profile(fit, site, level=level), wald(fit, level)[site].tolist()
            best, half = float(fit.draws[site]), (straight[1] - straight[0]) / 2
            axis.plot(values, -falls, label="profile")
            line = torch.linspace(best - 1.6 * half, best + 1.6 * half, 100)
            axis.plot(line, -fall * ((line - best) / half) ** 2, ls="--", lw=1, color="C1", label="parabola (Wald)")
            axis.axhline(-fall, color="0.6", lw=0.8)
            for interval, color in ((ends, "C0"), (straight, "C1")):
                axis.plot(interval, [-fall, -fall], "|", ms=12, mew=2, color=color)
            axis.set(xlabel=name, ylabel="log likelihood below its top (nats)", ylim=(-4.2, 0.2))
            axis.set_title(
                f"{level:.0%}: {ends[0]:.3g} to {ends[1]:.3g}\nWald: {straight[0]:.3g} to {straight[1]:.3g}", loc="left"
            )
            axis.legend(loc="lower center")
    plt.close(figure)
    return figure


def contours(
    fit: Fit, first: str | Number, second: str | Number, levels: Sequence[float] = (0.68, 0.95),
    names: Sequence[str] | None = None, num_points: int = 41,
) -> Figure:  # fmt: skip
    """Return the regions in which two numbers of a point are to be believed together, by their joint profile.

    Dashed: the ellipses that Wald's theory takes them for. names: what to call the numbers, units included.
    """
    x, y, fall = region(fit, first, second, num_points)
    falls = [-math.log1p(-level) for level in levels]
    shares = {fallen: f"{level:.0%}" for fallen, level in zip(falls, levels, strict=True)}
    middle = num_points // 2
    called = names or [each if isinstance(each, str) else f"{each[0]}{list(each[1])}" for each in (first, second)]
    with page(1, 1, width=4.8, height=4.0) as (figure, axes):
        axis = axes[0, 0]
        axis.clabel(axis.contour(x, y, fall, levels=falls, colors="C0"), fmt=shares)
        axis.plot([], [], color="C0", label="joint profile")
        for i, level in enumerate(levels):
            axis.plot(*ellipse(fit, first, second, level), "C1--", lw=1, label="" if i else "ellipse (Wald)")
        axis.plot(x[middle, middle], y[middle, middle], "k+", ms=9, label="best")
        axis.set(xlabel=called[0], ylabel=called[1])
        axis.legend(loc="best")
    plt.close(figure)
    return figure
