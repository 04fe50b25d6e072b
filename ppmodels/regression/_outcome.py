"""What a network's outputs say about the outcome: the likelihoods of a Bayesian neural network."""

from typing import Any, Literal

import pyro.distributions as dist
from torch import Tensor

Likelihood = Literal["gaussian", "heteroscedastic", "categorical", "poisson"]


def width(likelihood: Likelihood, classes: int) -> int:
    """Return how many outputs the likelihood takes, K."""
    return {"gaussian": 1, "heteroscedastic": 2, "categorical": classes, "poisson": 1}[likelihood]


def outcome(likelihood: Likelihood, f: Tensor, noise: Tensor | float | None) -> Any:
    """Return the law of y (N,) at outputs f (N, K): y ~ N(f_1, noise^2), N(f_1, exp f_2), Cat(f) or Poisson(exp f_1).

    Raises: ValueError where the network's outputs are of another width.
    """
    if likelihood == "gaussian":
        assert noise is not None
        return dist.Normal(f[..., 0], noise)
    if likelihood == "heteroscedastic":
        return dist.Normal(f[..., 0], (0.5 * f[..., 1]).exp())
    if likelihood == "categorical":
        return dist.Categorical(logits=f)
    return dist.Poisson(f[..., 0].exp())
