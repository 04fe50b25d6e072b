"""What happens inside trials: hidden paths and how sure we are of them, and the states a population goes through."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from inference.base import Fit, Unsupported, fresh
from inference.plots.panels import STYLE, page

DRAWS = 50  # of the posterior, over which a path or a state is averaged


def trajectories(fit: Fit, trials: Sequence[int] = (0, 1, 2), latents: Sequence[int] | None = None) -> Figure:
    """Return each latent against time in some trials: the mean of its posterior, and two standard deviations.

    The model has `path(theta, data)`, of mean (R, T, P) and cov (R or 1, T, P, P). Over several draws the band
    holds what the draws disagree on, too; they must agree on the coordinates.

    Raises: Unsupported when the model has no path.
    """
    mean, spread = _paths(fit, trials)
    shown = list(range(mean.shape[-1])) if latents is None else list(latents)
    time, unit = _time(fit, mean.shape[1])
    with page(len(shown), 1, width=7, height=1.5) as (figure, axes):
        for row, latent in enumerate(shown):
            axis = axes[row][0]
            for k, trial in enumerate(trials):
                middle, away = mean[k, :, latent], 2 * spread[k, :, latent]
                axis.fill_between(time, middle - away, middle + away, color=f"C{k % 10}", alpha=0.2, lw=0)
                axis.plot(time, middle, color=f"C{k % 10}", lw=1.4, label=f"trial {_label(fit, 'trial', trial)}")
            axis.set_ylabel(f"latent {latent}")
            axis.margins(x=0)
        axes[-1][0].set_xlabel(f"time ({unit})")
        axes[0][0].legend(ncols=min(4, len(trials)), loc="lower right", bbox_to_anchor=(1, 1))
        figure.suptitle(f"{fit.method}: latents, posterior mean and 2 sd", x=0.02, ha="left", fontsize=11)
    return figure


def orbits(fit: Fit, trials: Sequence[int] | None = None, latents: tuple[int, int] = (0, 1)) -> Figure:
    """Return two latents against one another, a line a trial, from a dot where it begins.

    Raises: Unsupported when the model has no path, or only one latent.
    """
    rows = _rows(fit)
    shown = list(range(min(20, rows))) if trials is None else list(trials)
    mean, _ = _paths(fit, shown)
    if max(latents) >= mean.shape[-1]:
        raise Unsupported(f"there is no latent {max(latents)}; the path has {mean.shape[-1]}")
    with mpl.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(5, 4.6), layout="constrained")
        colors = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(shown)))
        for one, color in zip(mean, colors, strict=True):
            axis.plot(one[:, latents[0]], one[:, latents[1]], color=color, lw=0.9, alpha=0.8)
            axis.plot(one[0, latents[0]], one[0, latents[1]], "o", color=color, ms=4)
        title = f"{fit.method}: {len(shown)} trials, each from its dot"
        axis.set(xlabel=f"latent {latents[0]}", ylabel=f"latent {latents[1]}", title=title)
        axis.set_aspect("equal", adjustable="datalim")
        plt.close(figure)
    return figure


def states(fit: Fit, trials: Sequence[int] | None = None) -> Figure:
    """Return the probability of each state in every bin of some trials, stacked, a row a trial.

    The model has `state_probabilities(theta, data)`, (R, T, S).

    Raises: Unsupported when the model has no states.
    """
    shown = list(range(min(8, _rows(fit)))) if trials is None else list(trials)
    values = _average(fit, "state_probabilities", lambda found: found)[shown]  # (trials, T, S)
    values = torch.where(_alive(fit, shown)[..., None], values, 0.0)
    values = torch.cat([values, values[:, -1:]], 1)  # up to the end of the last bin
    time, unit = _time(fit, values.shape[1] - 1)
    time = np.append(time, time[-1] + (time[1] - time[0] if len(time) > 1 else 1))
    with page(len(shown), 1, width=7, height=0.75) as (figure, axes):
        for row, (trial, one) in enumerate(zip(shown, values, strict=True)):
            axis: Axes = axes[row][0]
            names = [f"state {s}" for s in range(one.shape[-1])]
            colors = [f"C{s % 10}" for s in range(len(names))]
            axis.stackplot(time, one.mT.numpy(), labels=names, colors=colors, lw=0, step="post")
            axis.set(ylim=(0, 1), yticks=[0, 1], ylabel=_label(fit, "trial", trial), xlim=(time[0], time[-1]))
            if row + 1 < len(shown):
                axis.set_xticklabels([])
        axes[-1][0].set_xlabel(f"time ({unit})")
        axes[0][0].legend(ncols=6, loc="lower right", bbox_to_anchor=(1, 1), handlelength=1)
        figure.supylabel("trial; probability of the state", fontsize=9)
        figure.suptitle(f"{fit.method}: states", x=0.02, ha="left", fontsize=11)
    return figure


def _paths(fit: Fit, trials: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd of the paths of these trials over the draws, (trials, T, P) each."""
    pick = list(trials)

    def moments(found: Any) -> Tensor:
        own = found.cov.diagonal(dim1=-2, dim2=-1).expand(len(found.mean), -1, -1)[pick]
        mean = found.mean[pick]
        return torch.stack([mean, own + mean.square()])

    mean, square = torch.where(_alive(fit, pick)[..., None], _average(fit, "path", moments), torch.nan)
    return mean.numpy(), (square - mean.square()).clamp_min(0).sqrt().numpy()


def _average(fit: Fit, ability: str, read: Any) -> Tensor:
    """The mean over some draws of what the model says of its data at each."""
    if not hasattr(fit.model, ability) or fit.data is None:
        raise Unsupported(f"{type(fit.model).__name__} has no {ability.replace('_', ' ')} to draw")
    flat = {name: value.flatten(0, 1) for name, value in fit.draws.items()}
    number = len(next(iter(flat.values())))
    pick = torch.linspace(0, number - 1, min(DRAWS, number)).round().long().tolist()
    with fresh(fit.model, fit.args, fit.kwargs) as model, torch.no_grad():
        found = [read(getattr(model, ability)({k: v[i] for k, v in flat.items()}, fit.data)) for i in pick]
    return torch.stack(found).mean(0)


def _alive(fit: Fit, trials: Sequence[int]) -> Tensor:
    """Bins up to the last one in which something was seen, (trials, T); what comes after is no part of a trial."""
    assert fit.data is not None
    seen = (~next(iter(fit.data.observed.values()))[list(trials)].isnan()).any(-1)
    return seen.flip(-1).cumsum(-1).flip(-1) > 0


def _rows(fit: Fit) -> int:
    if fit.data is None:
        raise Unsupported("only a model of the collection has trials to draw")
    return fit.data.rows


def _time(fit: Fit, bins: int) -> tuple[np.ndarray, str]:
    """Seconds where the data or the model tell them, else numbers of bins."""
    told = fit.data.coords.get("time") if fit.data is not None else None
    if told is not None and len(told) == bins:
        return np.asarray(told, dtype=float), "s"
    size = getattr(fit.model, "bin_size", None)
    return (np.arange(bins) * size, "s") if size else (np.arange(bins, dtype=float), "bins")


def _label(fit: Fit, axis: str, i: int) -> str:
    labels = fit.data.coords.get(axis, ()) if fit.data is not None else ()
    return str(labels[i]) if len(labels) > i else str(i)
