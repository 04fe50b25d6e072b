"""Data with the ellipses of a mixture's components, and how far the posterior lets them move."""

from collections.abc import Sequence
from dataclasses import replace

import matplotlib as mpl
import matplotlib.colors
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from inference.base import Fit, Unsupported
from inference.plots.panels import in_units
from inference.pointwise import assignments
from inference.predict import computed

LEVELS = (1.0, 2.0)  # sds at which an ellipse is drawn


def ellipses(
    fit: Fit, *, loc: str = "loc", covariance: str = "covariance", columns: Sequence[int] = (0, 1), draws: int = 60
) -> Figure:
    """Return rows coloured by component, each component's mean ellipses, and those of single draws thinly.

    loc, covariance: sites, or computed sites, of shape (K, D) and (K, D, D).
    columns: which two of the D columns.
    draws: how many posterior draws to show.

    Raises: Unsupported when the fit has no such sites.
    """
    if fit.data is None:
        raise Unsupported("ellipses need a model of the collection, whose data have rows and columns")
    thin = _thinned(fit, draws)
    missing = [name for name in (loc, covariance) if name not in thin]
    if missing:
        raise Unsupported(f"the fit has no site {', '.join(missing)} to draw ellipses from")
    name, x = next(iter(fit.data.observed.items()))
    labels = next((v for v in fit.data.coords.values() if len(v) == x.shape[-1]), None)
    pair = list(columns)
    where = thin[loc].flatten(0, 1)[:, :, pair]  # (S, K, 2)
    spread = thin[covariance].flatten(0, 1)[:, :, pair][..., pair]  # (S, K, 2, 2)
    kept = {site: value for site, value in thin.items() if site in fit.draws}
    membership = next(iter(assignments(replace(fit, draws=kept)).values()))  # (N, K)
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 150}):
        figure, axis = plt.subplots(figsize=(6.4, 4.8), layout="constrained")
        colors = np.array([matplotlib.colors.to_rgb(f"C{k % 10}") for k in range(where.shape[1])])
        mixed = (membership.double().numpy() @ colors).clip(0, 1)
        axis.scatter(*x[:, pair].T.numpy(), c=mixed, s=14, alpha=0.7, linewidths=0)
        for k in range(where.shape[1]):
            _component(axis, where[:, k], spread[:, k], k, float(membership[:, k].mean()))
        title = f"{fit.method}: {where.shape[1]} components at {LEVELS[0]:.0f} and {LEVELS[1]:.0f} sd"
        names = [in_units(fit, str(labels[c])) if labels else f"{name}[{c}]" for c in pair]
        axis.set(xlabel=names[0], ylabel=names[1], title=title)
        axis.legend(frameon=False, loc="best")
        plt.close(figure)
    return figure


def _thinned(fit: Fit, draws: int) -> dict[str, Tensor]:
    """Some draws of every site, computed ones too, (1, draws, *site)."""
    total = next(iter(fit.draws.values())).shape[:2].numel()
    pick = torch.linspace(0, total - 1, min(draws, total)).round().long()
    thin = {site: value.flatten(0, 1)[pick][None] for site, value in fit.draws.items()}
    return {**computed(replace(fit, draws=thin)), **thin}


def _component(axis: Axes, loc: Tensor, covariance: Tensor, k: int, share: float) -> None:
    """One component: its ellipses at each draw, thin, and at the mean of the draws, bold. loc (S, 2)."""
    color = f"C{k % 10}"
    for centre, matrix in zip(loc, covariance, strict=True) if len(loc) > 1 else ():
        axis.plot(*_ellipse(centre, matrix, LEVELS[-1]), color=color, lw=0.5, alpha=0.15)
    for level in LEVELS:
        middle = _ellipse(loc.mean(0), covariance.mean(0), level)
        label = f"component {k}, {share:.0%} of the rows" if level == LEVELS[0] else None
        axis.plot(*middle, color=color, lw=1.8, label=label)
    axis.plot(*loc.mean(0).numpy(), "+", color="black", ms=9)


def _ellipse(centre: Tensor, matrix: Tensor, level: float) -> np.ndarray:
    """Points at so many sds from the centre, (2, 200)."""
    angle = torch.linspace(0, 2 * torch.pi, 200, dtype=matrix.dtype)
    circle = torch.stack([angle.cos(), angle.sin()])  # (2, 200)
    return (centre[:, None] + level * torch.linalg.cholesky(matrix) @ circle).numpy()
