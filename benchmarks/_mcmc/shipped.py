"""Posteriors whose data ship with the project or are simulated."""

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from benchmarks._mcmc.problem import Arrays, Problem
from ppmodels.clustering.gmm import GaussianMixture
from ppmodels.datasets import old_faithful

ROWS, COLUMNS = 10_000, 50
UNITS = 8


def mixture() -> Problem:
    """Two Gaussians with full covariance on the eruptions of Old Faithful."""
    data = old_faithful()
    x = data.observed["x"]
    model = GaussianMixture.for_data(x, components=2, ordered=True)
    scale = np.array(model.scale)
    rate = model.strength * (model.width * scale) ** 2 / 2  # (D,)
    given = {
        "x": x.numpy(),
        "center": np.array(model.center),
        "sd": model.spread * scale,
        "shape": (model.strength + np.arange(model.dim)) / 2,
        "rate": rate,
        "below": (2 * rate[0]) ** -0.5,
        "concentration": model.concentration,
    }

    def scored(draws: Arrays) -> Arrays:
        loc = draws.get("loc")
        if loc is None:
            loc = np.stack([draws["first"], draws["second"]], -1)  # (chain, draw, K, D)
        same = {site: draws[site] for site in ("weights", "precision", "off_diagonal")}
        return {"loc": loc, **same}

    def latents(values: Arrays) -> Arrays:
        same = {site: values[site] for site in ("weights", "precision", "off_diagonal")}
        return {"first": values["loc"][:, 0], "second": values["loc"][:, 1], **same}

    return Problem("mixture", model, (data,), given, scored, latents)


def poisson_glm() -> Problem:
    """Counts whose log rate is linear in many covariates; simulated."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(ROWS, COLUMNS))
    beta = rng.normal(size=COLUMNS) * 0.1
    y = rng.poisson(np.exp(0.5 + X @ beta)).astype(float)

    def scored(draws: Arrays) -> Arrays:
        return {site: draws[site] for site in ("intercept", "beta")}  # samplers give them in orders of their own

    return Problem("poisson_glm", _poisson_glm, (torch.tensor(X), torch.tensor(y)), {"X": X, "y": y}, scored)


def bnn() -> Problem:
    """A network of one hidden layer: the time to the next eruption of Old Faithful from the length of this one.

    Weights are exchangeable, and no chain visits all of their orders; so the function is scored, not the weights.
    """
    both = old_faithful().observed["x"]
    both = (both - both.mean(0)) / both.std(0)
    x, y = both[:, 0], both[:, 1]
    grid = np.linspace(-1.5, 1.5, 7)

    def scored(draws: Arrays) -> Arrays:
        hidden = np.tanh(grid[:, None] * draws["slope"][..., None, :] + draws["shift"][..., None, :])
        f = (hidden * draws["out"][..., None, :]).sum(-1) + draws["level"][..., None]  # (chain, draw, grid)
        return {"f": f, "sigma": draws["sigma"]}

    return Problem("bnn", _bnn, (x, y), {"x": x.numpy(), "y": y.numpy(), "units": UNITS}, scored)


def _poisson_glm(X: Tensor, y: Tensor) -> None:
    intercept = pyro.sample("intercept", dist.Normal(0.0, 1.0))
    beta: Any = pyro.sample("beta", dist.Normal(0.0, 1.0).expand([X.shape[1]]).to_event(1))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Poisson((intercept + X @ beta).exp()), obs=y)


def _bnn(x: Tensor, y: Tensor) -> None:
    slope: Any = pyro.sample("slope", dist.Normal(0.0, 2.0).expand([UNITS]).to_event(1))
    shift: Any = pyro.sample("shift", dist.Normal(0.0, 2.0).expand([UNITS]).to_event(1))
    out: Any = pyro.sample("out", dist.Normal(0.0, UNITS**-0.5).expand([UNITS]).to_event(1))
    level = pyro.sample("level", dist.Normal(0.0, 1.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    mean = torch.tanh(x[:, None] * slope + shift) @ out + level  # (N,)
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mean, sigma), obs=y)
