"""Multi-path Pathfinder: Gaussians along quasi-Newton paths, the best of each path, resampled by importance."""

import math
import time
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from inference.base import Fit, fresh, joint
from inference.density import Density
from inference.optimum.blocks import together
from inference.optimum.lbfgs import STATUS
from inference.optimum.paths import Approximation, approximate
from inference.psis import TRUSTED, psis, verdict

APART, QUORUM = 2.0, 0.75  # nats between ELBOs of paths that disagree, and the share that must agree


def fit(
    model: Any,
    *args: Any,
    seed: int = 0,
    num_samples: int = 1000,
    num_paths: int = 16,
    num_steps: int = 200,
    tol: float = 1e-6,
    memory: int = 12,
    num_elbo_draws: int = 25,
    progress_bar: bool = False,
    **kwargs: Any,
) -> Fit:
    """Approximate the posterior by a mixture of num_paths Gaussians, and resample its draws toward it.

    num_paths: climbs, in one batch, from starts uniform in (-2, 2) in unconstrained coordinates.
    num_steps, tol: a climb's steps at most, and the gain in nats at which it ends.
    memory: pairs of step and gradient from which each inverse Hessian is made.
    num_elbo_draws: draws by which the best iterates of a path are compared.
    Each draw weighs p / q with q the whole mixture, not the draw's own Gaussian: so two modes get their
    own masses, however many paths went to each, and the weights are bounded where any path covers them.

    Returns: a Fit of independent draws as chain 1, with stats `lp` and `path`; in info PSIS `khat` of the
        mixture, `elbo` per path and `restarts`.
    Raises: ArithmeticError when no path finds a Gaussian with a finite ELBO.
    Source: Zhang, Carpenter, Gelman and Vehtari (2022), JMLR 23, algorithm 2; Veach and Guibas (1995) for
        the mixture; Vehtari et al. (2024) for k-hat.
    """
    began = time.perf_counter()
    with fresh(model, args, kwargs, seed=seed) as own, Progress(disable=not progress_bar) as bar:
        bar.add_task("pathfinder", total=None)
        density = Density.of(joint(own, args, kwargs), args, kwargs)
        generator = torch.Generator(torch.empty(0).device).manual_seed(seed)
        found = approximate(
            density.batched(num_paths),
            density.start(num_paths, generator),
            generator,
            wide=density.batched(max(num_paths, together(density))),
            num_draws=max(25, math.ceil(4 * num_samples / num_paths)),
            num_steps=num_steps,
            tol=tol,
            memory=memory,
            num_elbo_draws=num_elbo_draws,
        )
        x, lp, path, khat = _resample(found, num_samples, generator)
        draws = {name: value[None] for name, value in density.constrain(x).items()}
        stats = {"lp": lp[None], "path": path[None]}
        good, message = _judge(found, khat)
        info = {"seed": seed, "khat": khat, "converged": good, "message": message}
        info |= {"elbo": found.elbo.tolist(), "restarts": _paths(found), "memory": memory, "tol": tol}
        info |= {"seconds": time.perf_counter() - began}
        return Fit(own, args, kwargs, "pathfinder", draws, {}, stats, info)


def _resample(found: Approximation, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, float]:
    """Draws, (S, dim), their log density and path, (S,), and k-hat of the mixture of all sound paths."""
    sound = found.elbo.isfinite()
    if not bool(sound.any()):
        raise ArithmeticError("no path found a Gaussian with a finite ELBO; check priors and data")
    normals, pool = found.normals[sound], found.draws[sound]
    paths, each, dim = pool.shape
    x, log_p = pool.reshape(-1, dim), found.log_p[sound].reshape(-1)
    parts = [normals.log_prob(block.expand(paths, -1, -1)) for block in x.split(each)]  # (P, S) each
    log_q = torch.cat(parts, 1).logsumexp(0) - math.log(paths)
    log_weights, khat = psis(log_p - log_q)
    chosen = systematic(log_weights.exp(), number, generator)
    path = sound.nonzero()[:, 0][chosen // each]
    return x[chosen], log_p[chosen], path, khat


def _judge(found: Approximation, khat: float) -> tuple[bool, str]:
    """Whether to trust the draws: k-hat is blind to a region that no path covers, but then paths disagree."""
    total, agree = len(found.elbo), int((found.elbo >= found.elbo.max() - APART).sum())
    if khat <= TRUSTED and agree < QUORUM * total:
        text = f"{verdict(khat)}, but only {agree} of {total} paths have an ELBO within {APART:.0f} nats of the best"
        return False, f"{text}: the posterior is far from Gaussian, or has local modes; sample with mcmc"
    return khat <= TRUSTED, verdict(khat)


def systematic(weights: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Return indices, (number,), in random order; each appears number * weight times, to within one.

    Source: Kitagawa (1996), J. Computational and Graphical Statistics 5, appendix.
    """
    like = {"generator": generator, "device": weights.device}
    offset = torch.rand((), dtype=weights.dtype, **like)
    places = (torch.arange(number, dtype=weights.dtype, device=weights.device) + offset) / number
    index = torch.searchsorted(weights.cumsum(0), places).clamp(max=len(weights) - 1)
    return index[torch.randperm(number, **like)]


def _paths(found: Approximation) -> list[dict[str, Any]]:
    """What became of every path."""
    climb = found.ascent
    rows = zip(found.elbo, found.step, climb.log_prob, climb.steps, climb.status, strict=True)
    return [
        {
            "elbo": float(elbo),
            "chosen_step": int(chosen),
            "log_density": float(top),
            "num_steps": int(steps),
            "message": STATUS[int(status)],
        }
        for elbo, chosen, top, steps, status in rows
    ]
