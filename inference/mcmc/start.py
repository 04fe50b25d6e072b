"""Where chains start and what metric they start with: the first tenth of a second decides the next ten."""

import logging

import torch
from torch import Tensor

from inference.density import Batched, Density
from inference.density.executor import chains_innermost
from inference.mcmc.chains import Chains, Tuned, normal
from inference.mcmc.metric import DENSE_UP_TO, Metric
from inference.mcmc.plan import Plan
from inference.optimum.normals import Normals
from inference.optimum.paths import approximate

log = logging.getLogger("inference")

PATHS = 16
LENGTH = 1.5  # of a trajectory in standard coordinates: a quarter of a Gaussian's period, pi / 2, or a little less


def start(density: Density, batched: Batched, plan: Plan, generator: torch.Generator) -> tuple[Chains, Tuned, int]:
    """Return chains at draws of Pathfinder's Gaussians, a first step size and metric, and the gradients spent."""
    chains = batched.chains
    x, metric, spent = None, _unit(density), 0
    if plan.init == "pathfinder":
        x, metric, spent = _from_pathfinder(density, batched, generator)
    if x is None:
        x = density.start(chains, generator)
    x = _finite(batched, x, generator)
    log_prob, grad = batched.once(x)
    return Chains(x, log_prob, grad), Tuned(0.5 if metric is not None else 0.1, LENGTH, metric), spent


def _from_pathfinder(
    density: Density, batched: Batched, generator: torch.Generator
) -> tuple[Tensor | None, Metric, int]:
    """Draws of the paths' Gaussians, each path as often as its ELBO earns, and the best path's covariance."""
    paths, wide = min(PATHS, batched.chains), batched.replayed()
    narrow = density.batched(paths, compile=False)
    found = approximate(narrow, density.start(paths, generator), generator, wide=wide, num_draws=1)
    elbo = found.elbo.nan_to_num(nan=-torch.inf)
    if not elbo.isfinite().any():
        log.info("Pathfinder found no Gaussian; chains start uniformly")
        return None, _unit(density), 0
    path = torch.multinomial(elbo.softmax(0), batched.chains, replacement=True, generator=generator)
    u = normal((batched.chains, density.dim), generator, elbo)
    x = found.normals[path].transform(u[:, None])[:, 0]
    return (
        chains_innermost(x),
        _metric(found.normals[int(elbo.argmax())], density.dim),
        paths * found.ascent.evaluations,
    )


def _metric(best: Normals, dim: int) -> Metric:
    """The best path's Gaussian as a metric."""
    if dim > DENSE_UP_TO:
        return Metric(_scale(best))
    factor, failed = torch.linalg.cholesky_ex(best.covariance())
    return Metric(torch.diag(_scale(best)) if failed else factor)


def _scale(normal: Normals) -> Tensor:
    """Standard deviations, (dim,), without the covariance matrix."""
    inner = normal.factor @ normal.factor.mT - torch.eye(normal.factor.shape[-1])
    variance = 1.0 + ((normal.basis @ inner) * normal.basis).sum(-1)
    return normal.scale * variance.clamp(min=1e-12).sqrt()


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
