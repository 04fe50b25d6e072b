"""Gibbs sampling of a Dirichlet process mixture: each block is drawn from its law given all others."""

from typing import Any

import torch
from torch import Tensor

from ppmodels.base import Data, Theta
from ppmodels.clustering._checks import check_rows
from ppmodels.clustering._covariance import parameters
from ppmodels.clustering._gaussian import log_density
from ppmodels.clustering._normal_wishart import prior_of, sites
from ppmodels.clustering._starts import labels
from ppmodels.clustering._statistics import of_labels
from ppmodels.clustering.sticks import stick_breaking
from ppmodels.clustering.variational import weights_given


def sweep(model: Any, data: Data, latents: Theta | None) -> Theta:
    """Return the next draw by site, with z (N,): sticks given memberships, then each Gaussian, then memberships.

    An empty component is drawn from the prior, and so may be found by rows later.
    Source: Ishwaran and James (2001), J. American Statistical Association 96, section 5.
    """
    x = data.observed["x"].double()
    if latents is None:
        check_rows(x, 1, model.dim, data.coords.get("feature", ()))
        z = labels(x, min(model.components, len(x)), "k-means++") if model.components > 1 else torch.zeros(len(x))
    else:
        z = latents["z"]
    sums = of_labels(x, z.long(), model.components, True)
    broken = weights_given(model, sums.count).sample()
    loc, factor = prior_of(model).given(sums).sample()
    theta = {"sticks" if model.weights == "sticks" else "weights": broken, "loc": loc, **sites(factor)}
    return {**theta, "z": _memberships(model, theta, x)}


def _memberships(model: Any, theta: Theta, x: Tensor) -> Tensor:
    """Each row's component, drawn from its posterior, (N,)."""
    weights = theta["weights"] if model.weights == "finite" else stick_breaking(theta["sticks"])
    values: Any = parameters({**theta, "weights": weights}, "full")
    table = values[0] + log_density(x, *values[1:])  # (N, K)
    noise = torch.empty_like(table).exponential_().log()  # the largest of log p minus log noise is a draw (Gumbel)
    return (table - noise).argmax(-1)
