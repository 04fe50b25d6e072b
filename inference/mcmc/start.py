"""Where chains start and what metric they start with: the first tenth of a second decides the next ten."""

import logging

import torch
from torch import Tensor

from inference._pathfinder import Approximation, approximate
from inference.density import Batched, Density
from inference.mcmc.chains import Chains, Tuned
from inference.mcmc.metric import DENSE_UP_TO, Metric
from inference.mcmc.plan import Plan

log = logging.getLogger("inference")

PATHS = 16
LENGTH = 1.5  # of a trajectory in standard coordinates: a quarter of a Gaussian's period, pi / 2, or a little less


def start(density: Density, batched: Batched, plan: Plan, generator: torch.Generator) -> tuple[Chains, Tuned, int]:
    """Return chains at draws of Pathfinder's Gaussians, a first step size and metric, and the gradients spent."""
    chains = batched.chains
    x, metric, spent = None, _unit(density), 0
    if plan.init == "pathfinder":
        x, metric, spent = _from_pathfinder(density, chains, generator)
    if x is None:
        x = density.start(chains, generator)
    x = _finite(batched, x, generator)
    log_prob, grad = batched.once(x)
    return Chains(x, log_prob, grad), Tuned(0.5 if metric is not None else 0.1, LENGTH, metric), spent


def _from_pathfinder(density: Density, chains: int, generator: torch.Generator) -> tuple[Tensor | None, Metric, int]:
    """Draws of the paths' Gaussians, each path as often as its ELBO earns, and the best path's covariance."""
    paths = min(PATHS, chains)
    narrow = density.batched(paths, compile=False)
    found = approximate(narrow, density.start(paths, generator), generator, num_draws=max(1, chains))
    elbo = found.elbo.nan_to_num(nan=-torch.inf)
    if not elbo.isfinite().any():
        log.info("Pathfinder found no Gaussian; chains start uniformly")
        return None, _unit(density), 0
    weights = elbo.softmax(0)
    path = torch.multinomial(weights, chains, replacement=True, generator=generator)
    x = found.draws[path, torch.arange(chains)]
    return x.mT.contiguous().mT, _covariance(found, int(elbo.argmax()), density.dim), 0


def _covariance(found: Approximation, best: int, dim: int) -> Metric:
    """The best path's Gaussian as a metric."""
    draws = found.draws[best]
    if dim > DENSE_UP_TO or len(draws) < 4 * dim:
        return Metric(_first_scale(draws))
    covariance = torch.cov(draws.T).reshape(dim, dim)
    factor, failed = torch.linalg.cholesky_ex(covariance + 1e-9 * torch.diag(covariance.diagonal()))
    return Metric(_first_scale(draws) if failed else factor)


def _first_scale(draws: Tensor) -> Tensor:
    return draws.std(0).clamp(min=1e-8)


def _unit(density: Density) -> Metric:
    """No knowledge: a dense unit where a matrix will be learned, so that one compiled step serves throughout."""
    eye = torch.eye(density.dim, device=density.device)
    return Metric(eye if density.dim <= DENSE_UP_TO else eye.diagonal().clone())


def _finite(batched: Batched, x: Tensor, generator: torch.Generator) -> Tensor:
    """Starts without a finite density moved to those that have one."""
    value, grad = batched.once(x)
    good = value.isfinite() & grad.isfinite().all(-1)
    if good.all():
        return x
    if not good.any():
        raise ValueError("no chain starts at a finite log density; check priors and data, or use init='uniform'")
    choice = torch.multinomial(good.double(), len(x), replacement=True, generator=generator)
    return torch.where(good[:, None], x, x[choice])
