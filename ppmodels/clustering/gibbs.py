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
from ppmodels.clustering.dirichlet_process import DirichletProcessMixture, stick_breaking
from ppmodels.clustering.variational import weights_given


def gibbs(
    model: DirichletProcessMixture, data: Data, *, num_samples: int = 500, num_warmup: int = 200, seed: int = 0
) -> Theta:
    """Return draws by site, (S, *site), with z (S, N), from one chain.

    Memberships given all else, then sticks given memberships, then each Gaussian: an empty component is drawn from
    the prior, and so may be found by rows later.
    Source: Ishwaran and James (2001), J. American Statistical Association 96, section 5.
    """
    x = check_rows(data.observed["x"], 1, model.dim, data.coords.get("feature", ())).double()
    prior, kept = prior_of(model), []
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        z = (
            labels(x, min(model.components, len(x)), "k-means++")
            if model.components > 1
            else torch.zeros(len(x)).long()
        )
        for step in range(num_warmup + num_samples):
            sums = of_labels(x, z, model.components, True)
            broken = weights_given(model, sums.count).sample()
            loc, factor = prior.given(sums).sample()
            theta = {"sticks" if model.weights == "sticks" else "weights": broken, "loc": loc, **sites(factor)}
            z = _memberships(model, theta, x)
            if step >= num_warmup:
                kept.append({**theta, "z": z})
    return {name: torch.stack([draw[name] for draw in kept]) for name in kept[0]}


def _memberships(model: DirichletProcessMixture, theta: Theta, x: Tensor) -> Tensor:
    """Each row's component, drawn from its posterior, (N,)."""
    weights = theta["weights"] if model.weights == "finite" else stick_breaking(theta["sticks"])
    values: Any = parameters({**theta, "weights": weights}, "full")
    table = values[0] + log_density(x, *values[1:])  # (N, K)
    noise = torch.empty_like(table).exponential_().log()  # the largest of log p minus log noise is a draw (Gumbel)
    return (table - noise).argmax(-1)
