"""Variational Bayes of Gaussian mixtures by coordinate ascent, with every constant of the bound."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Beta, Dirichlet, kl_divergence

from ppmodels.base import Data, Theta
from ppmodels.clustering._checks import check_rows
from ppmodels.clustering._gaussian import log_constant
from ppmodels.clustering._normal_wishart import NormalWishart, prior_of, sites
from ppmodels.clustering._one_pass import expected
from ppmodels.clustering._starts import labels
from ppmodels.clustering._statistics import Statistics, of_labels
from ppmodels.clustering.sticks import stick_breaking


@dataclass(frozen=True)
class Variational:
    """Independent posteriors of weights, Gaussians and memberships.

    weights: of the sticks, Beta (J,), or of the weights, Dirichlet (K,). gaussians: of means and precisions.
    count: rows of each component, (K,). bound: the evidence bound, at most log p(x), with all constants, so that it
    can be compared across numbers of components, priors and models.
    """

    weights: Any
    gaussians: NormalWishart
    count: Tensor
    bound: float

    @property
    def mean_weights(self) -> Tensor:
        """E pi, (K,)."""
        mean = self.weights.mean
        return stick_breaking(mean) if isinstance(self.weights, Beta) else mean

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log predictive density of new rows, (N,): a mixture of Student's t, which integrates to 1."""
        return (self.mean_weights.log() + self.gaussians.log_predictive(x.double())).logsumexp(-1)

    def memberships(self, x: Tensor) -> Tensor:
        """Return the probability of each component for new rows, (N, K)."""
        return (self.mean_weights.log() + self.gaussians.log_predictive(x.double())).softmax(-1)

    def sample(self, number: int) -> Theta:
        """Return draws by site, (number, *site)."""
        loc, factor = self.gaussians.repeat(number).sample()
        share = {"sticks" if isinstance(self.weights, Beta) else "weights": self.weights.sample((number,))}
        theta = {"loc": loc, **sites(factor)}
        return share | {name: value.unflatten(0, (number, -1)) for name, value in theta.items()}


def coordinate_ascent(
    model: Any, data: Data, *, num_restarts: int = 10, num_steps: int = 1000, tol: float = 1e-9, seed: int = 0
) -> Variational:
    """Return the highest of several climbs, for its predictions by formula; as a `Fit` it is svi's guide="blocks"."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        found = [_top(ascend(model, data), num_steps, tol) for _ in range(num_restarts)]
    return max(found, key=lambda one: one.bound)


def ascend(model: Any, data: Data) -> Iterator[Variational]:
    r"""Yield the posteriors after each step of coordinate ascent from random memberships; the bound never falls.

    .. math:: J = E_q[\log p(x, z, \pi, \mu, \Lambda)] - E_q[\log q] = \sum_n \log \sum_k \rho_{nk}
        - KL(q(\pi) \| p) - \sum_k KL(q(\mu_k, \Lambda_k) \| p)

    where rho is the expected joint density of a row and a component. Components come in the order of their size,
    which is the best for sticks.
    Source: Attias (2000); Blei and Jordan (2006), Bayesian Analysis 1; Bishop (2006), equations 10.46 to 10.77.
    """
    x = check_rows(data.observed["x"], 1, model.dim, data.coords.get("feature", ()))
    if x.isnan().any():
        raise ValueError("x has missing values, which coordinate ascent cannot take; em with prior=True can")
    prior, law = prior_of(model), weights_given(model, torch.zeros(model.components, dtype=torch.float64))
    first = (
        labels(x, min(model.components, len(x)), "k-means++") if model.components > 1 else torch.zeros(len(x)).long()
    )
    sums = of_labels(x, first, model.components, True)
    while True:
        order = sums.count.argsort(descending=True)
        sums = Statistics(sums.count[order], sums.mean[order], sums.scatter[order])
        weights, gaussians = weights_given(model, sums.count), prior.given(sums)
        factor = gaussians.factor
        log_weights = _expected_log(weights) + gaussians.expected_log_det / 2 - model.dim / (2 * gaussians.rows)
        half = log_constant(factor) - log_constant(torch.ones_like(factor[:, 0]))  # log |W|, which `expected` puts in
        sums, score = expected(x, log_weights - half, gaussians.mean, factor)
        penalty = kl_divergence(weights, law).sum() + gaussians.divergence(prior).sum()
        yield Variational(weights, gaussians, sums.count, float(score - penalty))


def _top(steps: Iterator[Variational], num_steps: int, tol: float) -> Variational:
    """The step from which the bound stands still."""
    last = next(steps)
    for one in islice(steps, num_steps - 1):
        gain, last = one.bound - last.bound, one
        if gain <= tol * (1 + abs(last.bound)):
            break
    return last


def weights_given(model: Any, count: Tensor) -> Any:
    """The posterior of sticks or of weights, from the size of each component."""
    if model.weights == "finite":
        return Dirichlet(model.concentration + count)
    beyond = count.flip(0).cumsum(0).flip(0)[1:]  # (J,)
    return Beta(1 + count[:-1], model.concentration + beyond)


def _expected_log(weights: Any) -> Tensor:
    """E log pi, (K,)."""
    if isinstance(weights, Dirichlet):
        return weights.concentration.digamma() - weights.concentration.sum().digamma()
    one, zero = weights.concentration1, weights.concentration0
    total, nothing = (one + zero).digamma(), one.new_zeros(1)
    taken, left = one.digamma() - total, zero.digamma() - total  # (J,)
    return torch.cat([taken, nothing]) + torch.cat([nothing, left.cumsum(0)])
