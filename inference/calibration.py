"""Simulation-based calibration: over data from the prior, the truth's rank among draws is uniform."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import torch
import xarray as xr
from pyro import poutine
from rich.progress import track
from scipy import stats
from torch import Tensor

from inference.base import Fit, Unsupported, fresh
from inference.datatree.groups import Axes
from inference.predict import simulate
from inference.tracing.over_draws import flatten
from inference.tracing.sites import At, Program, is_data, sample_nodes
from ppmodels.base import Model


@dataclass(frozen=True)
class Calibration:
    """Ranks of the truth among posterior draws, over many simulated data sets.

    ranks: by site, (data sets, *site), from 0 to `num_draws`.
    p_values: by site, (*site): how likely ranks at least as uneven are when the method is right.
    tree: group `prior_sbc`, the ranks as probabilities, which ArviZ's `plot_ecdf_pit` draws.
    """

    ranks: dict[str, Tensor]
    num_draws: int
    p_values: dict[str, Tensor]
    tree: xr.DataTree

    @property
    def p_value(self) -> float:
        """The smallest p-value, corrected for the number of quantities (Bonferroni)."""
        every = torch.cat([value.reshape(-1) for value in self.p_values.values()])
        return min(1.0, float(every.min()) * len(every))


def simulation_based_calibration(
    model: Model | Callable[..., Any],
    fit_function: Callable[..., Fit],
    *args: Any,
    num_datasets: int = 100,
    num_draws: int = 99,
    rows: int = 50,
    seed: int = 0,
    statistics: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
    progress_bar: bool = False,
    **kwargs: Any,
) -> Calibration:
    """Draw latents and data from the model, fit, and rank the latents among the draws; many times.

    model: of the collection, or a plain program with its `args` and `kwargs`, whose observations are
        replaced by simulated ones.
    fit_function: called as fit_function(model, data, seed=i), or fit_function(program, *args, seed=i).
    num_draws: posterior draws that the truth is ranked among, taken at even distances from all chains;
        with fewer independent ones than that, ranks pile up at both ends.
    rows: of each simulated data set of a model of the collection.
    statistics: what to rank, computed from site values (..., *site): for instance without label switching.

    Returns: a `Calibration`.
    Raises: Unsupported when a fit gives fewer than `num_draws` draws.
    Source: Talts et al. (2018), arXiv:1804.06788, algorithm 1.
    """
    collected: dict[str, list[Tensor]] = {}
    for i in track(range(num_datasets), "calibration", disable=not progress_bar):
        number = int(np.random.SeedSequence([seed, i]).generate_state(1)[0])
        question, given, truth = _simulated(model, args, kwargs, rows, number)
        fit = fit_function(question, *given, seed=number, **kwargs)
        draws = _thinned(fit, num_draws, number)
        truth = {name: value for name, value in truth.items() if name in draws}
        if statistics is not None:
            draws, truth = statistics(draws), statistics(truth)
        for name, value in truth.items():
            collected.setdefault(name, []).append(_rank(draws[name], value))
    ranks = {name: torch.stack(values) for name, values in collected.items()}
    p_values = {name: _uniformity(value, num_draws) for name, value in ranks.items()}
    shown = {name: (value[None].double() + 0.5) / (num_draws + 1) for name, value in ranks.items()}
    tree = xr.DataTree.from_dict({"prior_sbc": Axes(None).dataset(shown)})
    return Calibration(ranks, num_draws, p_values, tree)


def _simulated(model: Any, args: Any, kwargs: Any, rows: int, seed: int) -> tuple[Any, Any, dict[str, Tensor]]:
    """What to fit, what to call it with, and the latents that made the data."""
    if isinstance(model, Model):
        data, truth = simulate(model, rows, seed)
        return model, (data,), truth
    with fresh(model, args, kwargs, seed=seed) as own, torch.no_grad():
        wanted = [n for n, v in Program.read(own, args, kwargs, {}).nodes.items() if is_data(v)]
        with At({}, redraw=True):
            nodes = sample_nodes(poutine.trace(own).get_trace(*args, **kwargs))
    values = {name: node["value"].detach() for name, node in nodes.items()}
    data = {name: values.pop(name) for name in wanted}

    def conditioned(*args: Any, **kwargs: Any) -> Any:
        return pyro.condition(model, data=data)(*args, **kwargs)

    return conditioned, args, values


def _thinned(fit: Fit, num_draws: int, seed: int) -> dict[str, Tensor]:
    draws, shape = flatten(fit.draws)
    if shape.numel() < num_draws:
        raise Unsupported(f"{fit.method} gave {shape.numel()} draws; the truth is to be ranked among {num_draws}")
    index = torch.linspace(0, shape.numel() - 1, num_draws).round().long()
    return {name: value[index] for name, value in draws.items()}


def _rank(draws: Tensor, truth: Tensor) -> Tensor:
    """How many draws lie below the truth, ties split evenly: (*site)."""
    below, equal = (draws < truth).sum(0), (draws == truth).sum(0)
    return below + (equal // 2)


def _uniformity(ranks: Tensor, num_draws: int) -> Tensor:
    """The p-value of a chi-squared test that ranks are uniform, for each element: (*site)."""
    total = len(ranks)
    bins = max(2, min(20, total // 5))
    edges = np.linspace(0, num_draws + 1, bins + 1)
    expected = total * np.diff(np.ceil(edges)) / (num_draws + 1)
    flat = ranks.reshape(total, -1).numpy()
    counts = np.stack([np.histogram(column, np.ceil(edges) - 0.5)[0] for column in flat.T])
    statistic = ((counts - expected) ** 2 / expected).sum(1)
    return torch.from_numpy(stats.chi2.sf(statistic, bins - 1)).reshape(ranks.shape[1:])
