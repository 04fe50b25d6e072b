"""The M step of a Gaussian mixture, from its sufficient statistics."""

import torch
from torch import Tensor

from ppmodels.base import Theta
from ppmodels.clustering import _covariance
from ppmodels.clustering._covariance import SMALLEST, Family
from ppmodels.clustering._gaussian import moments
from ppmodels.clustering._starts import Seeding, memberships

SWEEPS = 200
RIDGE = 1e-3  # of a column's variance


def start(family: Family, x: Tensor, components: int, seeding: Seeding) -> Theta:
    """Return the parameters of random memberships, with variances a little above zero in every direction."""
    q = memberships(x, components, seeding)
    count, mean, scatter = moments(q, x, family in ("full", "tied"))
    ridge = count[:, None] * RIDGE * _variance(count, mean, scatter)  # (K, D)
    theta = maximum_likelihood(family, count, mean, scatter + (ridge.diag_embed() if scatter.ndim == 3 else ridge))
    return _like(x, theta)


def maximise(family: Family, q: Tensor, x: Tensor, prior: tuple[Tensor, ...] | None) -> Theta:
    """Return argmax of E_q log p(x, z | theta), plus log p(theta) when there is a prior.

    q: memberships, (N, K). prior: concentration (K,); mean (K, D) and sd (D,) of loc; shape and rate of
    precision (D,), or () when spherical.
    Raises: ArithmeticError, without prior, when a component has collapsed.
    """
    statistics = moments(q, x, family in ("full", "tied"))
    if prior is None:
        return _like(x, maximum_likelihood(family, *statistics))
    return _like(x, maximum_posterior(family, *statistics, prior))


def maximum_likelihood(family: Family, count: Tensor, mean: Tensor, scatter: Tensor) -> Theta:
    """Return argmax of E_q log p(x, z | theta): shares, means and covariances of the weighted rows.

    Raises: ArithmeticError when a component has collapsed: in some direction its variance is less than
    `SMALLEST` of the data's, on the way to an infinite likelihood.
    """
    dim = mean.shape[-1]
    one, zero = torch.ones((), dtype=mean.dtype), torch.zeros((), dtype=mean.dtype)
    shape, rate = (one, zero) if family == "spherical" else (one.expand(dim), zero.expand(dim))
    sites, pivot = _covariance.best(family, count, scatter, shape, rate)
    rows = count.sum() if family == "tied" else count[:, None]
    alive = pivot / rows > SMALLEST * _variance(count, mean, scatter)  # (K, D); False for NaN
    if not alive.all():
        k = int((~alive).any(-1).nonzero()[0])
        what = "the tied covariance" if family == "tied" else f"component {k} (of {count[k].item():.3g} rows)"
        raise ArithmeticError(f"{what} has collapsed; take fewer components, or prior=True")
    return {"weights": count / count.sum(), "loc": mean, **sites}


def maximum_posterior(family: Family, count: Tensor, mean: Tensor, scatter: Tensor, prior: tuple[Tensor, ...]) -> Theta:
    """Return argmax of the same plus log p(theta).

    Weights are in closed form; so are means given covariances and covariances given means, which are taken
    in turn to their joint fixed point.
    """
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


def _variance(count: Tensor, mean: Tensor, scatter: Tensor) -> Tensor:
    """The variance of each column over all rows, (D,)."""
    total = count.sum()
    within = scatter.diagonal(dim1=-2, dim2=-1) if scatter.ndim == 3 else scatter  # (K, D)
    between = (mean - (count @ mean) / total).square() * count[:, None]
    return (within + between).sum(0) / total


def _like(x: Tensor, theta: Theta) -> Theta:
    """Parameters in the precision of x; sums are in float64."""
    return {name: value.to(x.dtype) for name, value in theta.items()}
