"""Where chains start and what metric they start with: the first tenth of a second decides the next ten."""

import logging
import math

import torch
from torch import Tensor

from inference.density import Batched, Density
from inference.density.executor import chains_innermost
from inference.mcmc.chains import Chains, Tuned
from inference.mcmc.evaluation import by_steps
from inference.mcmc.metric import DENSE_UP_TO, Metric
from inference.mcmc.plan import Plan
from inference.optimum.normals import Normals
from inference.optimum.paths import Approximation, approximate

log = logging.getLogger("inference")

PATHS = 16
WIDE = 64  # draws whose densities are evaluated together
POOL = 400  # draws among which starts are chosen, four times as many as chains where those are many
ELEMENTS = 4_000_000  # that all these draws have together
LENGTH = 1.5  # of a trajectory in standard coordinates: a quarter of a Gaussian's period, pi / 2, or a little less


def start(density: Density, batched: Batched, plan: Plan, generator: torch.Generator) -> tuple[Chains, Tuned, int]:
    """Return chains at draws of Pathfinder's Gaussians, a first step size and metric, and the gradients spent."""
    chains = batched.chains
    x, metric, spent = None, _unit(density), 0
    if plan.init == "pathfinder":
        x, metric, spent = _from_pathfinder(density, batched, plan, generator)
    if x is None:
        x = density.start(chains, generator)
    x = _finite(batched, x, generator)
    log_prob, grad = batched.once(x)
    return Chains(x, log_prob, grad), Tuned(0.5 if metric is not None else 0.1, LENGTH, metric), spent


def paths_of(
    density: Density,
    generator: torch.Generator,
    wide: Batched | None = None,
    narrow: Batched | None = None,
    num_draws: int = 1,
) -> Approximation:
    """Return the Gaussians of as many paths as one batch climbs, with so many draws of each.

    wide, narrow: the density for the Monte Carlo, and for the climbing of PATHS paths, where they are at hand.
    """
    narrow = narrow or density.batched(PATHS, compile=False)
    at = density.start(PATHS, generator)
    return approximate(narrow, at, generator, wide=wide or density.batched(WIDE, compile=False), num_draws=num_draws)


def _from_pathfinder(
    density: Density, batched: Batched, plan: Plan, generator: torch.Generator
) -> tuple[Tensor | None, Metric, int]:
    """Draws of the paths' Gaussians, resampled toward the posterior, and the best path's covariance."""
    chains = batched.chains
    affordable = max(chains, ELEMENTS // density.dim)
    each = math.ceil(min(max(POOL, 4 * chains), affordable) / PATHS)
    factor = _unit(density).factor
    narrow = by_steps(batched, plan, factor, PATHS)
    wide = by_steps(batched, plan, factor, chains) or (batched.replayed() if chains >= WIDE else None)
    found = paths_of(density, generator, wide, narrow, each)
    if not found.elbo.isfinite().any():
        log.info("Pathfinder found no Gaussian; chains start uniformly")
        return None, _unit(density), 0
    x = resampled(found, chains, generator)
    best = found.normals[int(found.elbo.nan_to_num(nan=-torch.inf).argmax())]
    return chains_innermost(x), _metric(best, density.dim), PATHS * found.ascent.evaluations


def resampled(found: Approximation, number: int, generator: torch.Generator) -> Tensor:
    """Return draws of the sound paths, (number, dim), by their weights p / q with q the mixture of all paths.

    So a draw far outside starts no chain, and each mode gets the chains of its mass. The weights are flattened,
    w^a with a <= 1, until enough different draws carry them: in many dimensions a single one would start all chains.
    """
    sound = found.elbo.isfinite()
    normals, pool, log_p = found.normals[sound], found.draws[sound], found.log_p[sound].flatten()
    paths = len(pool)
    log_q = torch.cat([normals.log_prob(block.expand(paths, -1, -1)).logsumexp(0) for block in pool])
    log_weights = torch.where(log_p.isfinite(), log_p - log_q, -torch.inf)
    least, power = min(len(log_p) / 4, max(number / 4, PATHS)), 1.0
    weights = log_weights.softmax(0)
    while weights.square().sum() * least > 1 and power > 1e-3:
        power *= 0.8
        weights = (power * log_weights).softmax(0)
    return pool.flatten(0, 1)[torch.multinomial(weights, number, replacement=True, generator=generator)]


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
