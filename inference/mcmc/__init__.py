"""Markov chain Monte Carlo over a batch of chains in one process.

`fit(model, *args)` chooses kernel and number of chains by what a gradient costs; from 4 to 4,096 chains by the
same call. Chains start from Pathfinder, adapt together, and draw in chunks that can be kept, stopped and resumed.
"""

import time
from pathlib import Path
from typing import Any

import torch

from inference.base import Fit, Unsupported, conditioned, fresh, joint
from inference.density import Density
from inference.mcmc import gibbs, nutpie
from inference.mcmc import workers as blocks
from inference.mcmc.plan import Plan, check_goals, plan
from inference.mcmc.run import Run, begin, sample
from inference.mcmc.stop import Stop

__all__ = ["extend", "fit"]


def fit(
    model: Any,
    *args: Any,
    seed: int = 0,
    num_samples: int | None = None,
    num_warmup: int | None = None,
    num_chains: int | None = None,
    kernel: str = "auto",
    target_accept_prob: float = 0.8,
    max_tree_depth: int = 10,
    init: str = "pathfinder",
    centred: bool | str = "auto",
    compile: bool | str = "auto",
    save_warmup: bool = False,
    target_ess: float | None = None,
    timeout: float | None = None,
    checkpoint: str | Path | None = None,
    workers: int | None = None,
    progress_bar: bool = False,
    **kwargs: Any,
) -> Fit:
    """Draw from the posterior of a model of the collection, or of any Pyro program with its arguments.

    num_samples: draws a chain, after warm-up. num_chains, num_warmup, num_samples: None chooses many short
    chains where a gradient is cheap, few long ones where it is dear.
    kernel: "hmc" (jittered), "chees", "nuts", "mams", "nutpie" where it is installed; "gibbs" for a model with blocks
    whose laws it knows (`HasBlocks`); "auto" is mams where data outnumber many coordinates by far, and hmc elsewhere.
    init: "pathfinder", or "uniform" on (-2, 2) in unconstrained coordinates.
    centred: how a site with a latent scale moves: True as the program writes it, False non-centred, "auto" as is best
    for each of its elements. Its draws are of the program's own sites all the same.
    compile: True, False, or "auto": where the planned number of gradients earns the compiler's time back.
    target_accept_prob: to which the warm-up tunes the step. Where trajectories diverge all draws are made again with
    half of it, twice at most; `info["halved"]` says how often.
    target_ess, timeout: stop early once the smallest bulk ESS is reached, or after so many seconds.
    checkpoint: a folder that keeps state and draws; the same call after a crash goes on where it was, and ends
    with bit-for-bit the same draws. They stay in the folder and are mapped into memory.
    workers: processes that draw, -1 for one a core; under `joblib.parallel_config(backend="dask")` or "ray" on
    several machines. The draws are the same for any number of workers, but not those of None, which draws all
    chains together in this process: where a gradient is cheap, that is faster.

    Raises: Unsupported when a discrete site cannot be summed out, the model has parameters to learn, the kernel
    is nutpie and the package is not installed, or the model cannot be sent to workers. TimeoutError when the
    time is over before the warm-up is.
    """
    options = plan(
        seed=seed,
        num_samples=num_samples,
        num_warmup=num_warmup,
        num_chains=num_chains,
        kernel=kernel,
        target_accept_prob=target_accept_prob,
        max_tree_depth=max_tree_depth,
        init=init,
        centred=centred,
        compile=compile,
        save_warmup=save_warmup,
        in_blocks=workers is not None,
    )
    check_goals(target_ess, timeout, workers)
    goals = {"target_ess": target_ess, "timeout": timeout, "checkpoint": checkpoint, "workers": workers}
    if kernel == "gibbs":
        gibbs.refuse(goals)
        return gibbs.fit(model, args, kwargs, options, progress_bar)
    if kernel == "nutpie":
        nutpie.refuse(goals)
    stop = Stop(target_ess, timeout)
    began = time.perf_counter()
    with fresh(model, args, kwargs, seed=seed) as own:
        density = Density.of(joint(own, args, kwargs), args, kwargs)
        if kernel == "nutpie":
            return nutpie.fit(own, args, kwargs, density, options, progress_bar)
        run = begin(density, options, checkpoint, stop, progress_bar)
        _sample(run, own, args, kwargs, run.plan.num_samples, workers, stop, progress_bar)
        return _answer(own, args, kwargs, run, time.perf_counter() - began, stop)


def extend(
    fit: Fit,
    num_samples: int,
    *,
    target_ess: float | None = None,
    timeout: float | None = None,
    workers: int | None = None,
    progress_bar: bool = False,
) -> Fit:
    """Return the fit with `num_samples` more draws a chain, from where its chains are, without a new warm-up.

    workers: as in `fit`, for a fit that was made with workers.
    """
    check_goals(target_ess, timeout, workers)
    if fit.state is None:
        raise Unsupported("this fit has no sampler state to go on from")
    stop, began = Stop(target_ess, timeout), time.perf_counter()
    with fresh(fit.model, fit.args, fit.kwargs, seed=fit.info["seed"]) as own:
        density = Density.of(conditioned(own), fit.args, fit.kwargs)
        run = Run.resumed(density, fit.state)
        _sample(run, own, fit.args, fit.kwargs, run.turn + num_samples, workers, stop, progress_bar)
        more = _answer(own, fit.args, fit.kwargs, run, fit.info["seconds"] + time.perf_counter() - began, stop)
    return Fit(
        fit.model,
        fit.args,
        fit.kwargs,
        fit.method,
        {name: torch.cat([value, more.draws[name]], 1) for name, value in fit.draws.items()},
        fit.trace,
        {name: torch.cat([value, more.stats[name]], 1) for name, value in fit.stats.items()},
        more.info,
        fit.warmup_draws,
        fit.warmup_stats,
        more.state,
    )


def _answer(own: Any, args: Any, kwargs: Any, run: Run, seconds: float, stop: Stop) -> Fit:
    """What the run found, as a fit."""
    settings: Plan = run.plan
    draws, stats = run.store.gather(run.density)
    before = run.warmup.gather(run.density) if settings.save_warmup else ({}, {})
    chains, made = next(iter(stats.values())).shape
    info = {
        "seed": settings.seed,
        "seconds": seconds,
        "converged": stop.reason == "",
        "message": stop.reason or stop.message or f"{made} draws from each of {chains} chains",
        "kernel": settings.kernel,
        "num_chains": chains,
        "num_samples": made,
        "num_warmup": settings.num_warmup,
        "step_size": run.tuned.step_size,
        "centred": run.coordinates.shares,
        "halved": run.halved,
        "metric": "dense" if run.tuned.metric.dense else "diagonal",
        "gradients": run.gradients,
        "executor": run.batched.executor,
        "executor_reason": run.batched.reason,
        "target_accept_prob": settings.target_accept_prob,
        "max_tree_depth": settings.max_tree_depth,
    }
    return Fit(own, args, kwargs, "mcmc", draws, {}, stats, info, *before, run.state())


def _sample(
    run: Run, own: Any, args: Any, kwargs: Any, until: int, workers: int | None, stop: Stop, progress_bar: bool
) -> None:
    """Draw here, or in blocks elsewhere."""
    if run.plan.in_blocks:
        blocks.sample(run, own, args, kwargs, until, workers, stop, progress_bar)
    elif workers is not None:
        raise ValueError("this fit was made without workers, and goes on without")
    else:
        sample(run, until, stop, progress_bar)
