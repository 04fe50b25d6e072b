"""The M step of a Gaussian mixture, from its sufficient statistics."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ppmodels.base import Data, Theta
from ppmodels.clustering import _covariance
from ppmodels.clustering._checks import check_data
from ppmodels.clustering._covariance import SMALLEST, Family
from ppmodels.clustering._starts import Seeding, labels
from ppmodels.clustering._statistics import Statistics, of_labels

SWEEPS = 200
SHARED = 0.1  # of every row, given to all components alike, so that none starts on a single row
RIDGE = 1e-3  # of a column's variance


def start(model: Any, data: Data, again: bool = False) -> Theta:
    """Return the parameters of random memberships, with variances a little above zero in every direction.

    Most of a row is given to the nearest of some far rows. Where values are missing, their column's mean stands in.
    again: every other restart, which mixed seeding makes by lot.
    Raises: ValueError of one line when the rows or their weights are not what a mixture needs.
    """
    x, weight = data.observed["x"], data.given.get("weight")
    family, components = model.covariance, model.components
    check_data(model, data)
    if x.sum().isnan():
        x = torch.where(x.isnan(), x.nanmean(0), x)
    label, triangular = labels(x, components, _seeding(model, again), weight), family in ("full", "tied")
    own = of_labels(x, label, components, triangular, weight)
    shared = own * (1 - SHARED) + own.pooled().split(components) * SHARED
    ridge = shared.count[:, None] * RIDGE * _variance(shared)  # (K, D)
    scatter = shared.scatter + (ridge.diag_embed() if triangular else ridge)
    return maximise(family, replace(shared, scatter=scatter), None)


def maximise(family: Family, statistics: Statistics, prior: tuple[Tensor, ...] | None) -> Theta:
    """Return argmax of E_q log p(x, z | theta), plus log p(theta) when there is a prior.

    prior: concentration (K,); mean (K, D) and sd (D,) of loc; shape and rate of precision (D,), or () when
    spherical.
    Raises: ArithmeticError, without prior, when a component has collapsed.
    """
    best = maximum_likelihood(family, statistics) if prior is None else maximum_posterior(family, statistics, prior)
    return {name: value.to(statistics.dtype) for name, value in best.items()}


def maximum_likelihood(family: Family, statistics: Statistics) -> Theta:
    """Return argmax of E_q log p(x, z | theta): shares, means and covariances of the weighted rows.

    Raises: ArithmeticError when a component has collapsed: in some direction its variance is less than
    `SMALLEST` of the data's, on the way to an infinite likelihood.
    """
    count, mean, scatter = statistics.count, statistics.mean, statistics.scatter
    dim = mean.shape[-1]
    one, zero = torch.ones((), dtype=mean.dtype), torch.zeros((), dtype=mean.dtype)
    shape, rate = (one, zero) if family == "spherical" else (one.expand(dim), zero.expand(dim))
    sites, pivot = _covariance.best(family, count, scatter, shape, rate)
    rows = count.sum() if family == "tied" else count[:, None]
    alive = pivot / rows > SMALLEST * _variance(statistics)  # (K, D); False for NaN
    if not alive.all():
        k = int((~alive).any(-1).nonzero()[0])
        what = "the tied covariance" if family == "tied" else f"component {k} (of {count[k].item():.3g} rows)"
        raise ArithmeticError(f"{what} has collapsed; take fewer components, or prior=True")
    return {"weights": count / count.sum(), "loc": mean, **sites}


def maximum_posterior(family: Family, statistics: Statistics, prior: tuple[Tensor, ...]) -> Theta:
    """Return argmax of the same plus log p(theta).

    Weights are in closed form; so are means given covariances and covariances given means, which are taken
    in turn to their joint fixed point.
    """
    count, mean, scatter = statistics.count, statistics.mean, statistics.scatter
    concentration, middle, sd, shape, rate = (p.to(mean) for p in prior)
    weights = count + concentration - 1
    triangular, loc, sites = scatter.ndim == 3, mean, {}
    for _ in range(SWEEPS):
        gap = mean - loc
        extra = gap[:, :, None] * gap[:, None] * count[:, None, None] if triangular else gap**2 * count[:, None]
        sites, _ = _covariance.best(family, count, scatter + extra, shape, rate)
        factor = _covariance.whitening(sites, family, mean.shape[-1])
        precision = factor.mT @ factor if triangular else factor.square().diag_embed()  # (K, D, D)
        pull = precision * count[:, None, None]
        shift = torch.linalg.solve(pull + sd.square().reciprocal().diag(), (middle - mean) / sd.square())
        moved, loc = (mean + shift - loc) / sd, mean + shift
        if moved.abs().max() < 1e-15:
            break
    return {"weights": weights / weights.sum(), "loc": loc, **sites}


def _seeding(model: Any, again: bool) -> Seeding:
    """How rows are given to components."""
    return model.seeding if model.seeding != "mixed" else "random" if again else "k-means++"


def _variance(statistics: Statistics) -> Tensor:
    """The variance of each column over all rows, (D,)."""
    every = statistics.pooled()
    scatter = every.scatter[0]
    return (scatter.diagonal() if scatter.ndim == 2 else scatter) / every.count
