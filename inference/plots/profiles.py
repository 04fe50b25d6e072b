"""Profile likelihoods: how far the objective falls as one number moves away from its best value."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from inference.base import Fit
from inference.information import curve, profile, wald
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
