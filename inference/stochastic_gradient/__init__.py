"""Stochastic gradient MCMC: Langevin's and Hamilton's dynamics on gradients of a few rows, for many chains at once."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from inference.base import Fit, Unsupported, fresh
from inference.density.minibatch import Minibatches
from inference.stochastic_gradient.plan import Plan
from inference.stochastic_gradient.run import Run
from inference.training.checkpoint import Checkpoint

__all__ = ["extend", "fit"]


def fit(
    model: Any,
    *args: Any,
    seed: int = 0,
    num_samples: int = 250,
    num_warmup: int = 2000,
    num_chains: int = 8,
    kernel: str = "sghmc",
    batch_size: int | None = None,
    lr: float | None = None,
    schedule: str = "constant",
    num_cycles: int = 4,
    thinning: int = 20,
    friction: float = 0.1,
    temperature: float = 1.0,
    precondition: bool = True,
    compile: bool | str = "auto",
    checkpoint: str | Path | None = None,
    progress_bar: bool = False,
    **kwargs: Any,
) -> Fit:
    """Draw from the posterior by steps that nobody accepts or rejects: cheap, and a little too wide.

    kernel: "sgld", or "sghmc", which keeps its momentum and travels further.
    batch_size: rows a step; None takes all. Few rows add the gradient's own noise, of the order of lr.
    num_warmup: the first half climbs, the second moves without being kept.
    lr: step size in units of a posterior variance; by default a share of the largest that is stable. The draws'
        variance is too large by a share of the order of lr.
    schedule: "constant"; "decay", t^(-1/3), whose draws are to be weighted by stats["step_size"]; "cyclical", in
        each of num_cycles a quiet part to draw from after large steps to another mode.
    thinning: steps from one kept snapshot to the next. friction: share of the momentum lost in a step.
    temperature: 1 is the posterior, 0 the mode. precondition: scale coordinates by the curvature after the climb.
    checkpoint: a file to go on from, if it is there, and to write to; the result is the same to the bit.

    Returns: a Fit whose stats are `lp`, as estimated on the way, and `step_size`; its state keeps running means and
        second moments of all steps in unconstrained coordinates, `mean` and `square`, (chain, dim).
    Raises: Unsupported where rows cannot be taken apart; FloatingPointError naming a chain that has diverged.
    Source: Welling and Teh (2011); Chen, Fox and Guestrin (2014); Zhang et al. (2020) for cycles.
    """
    began = time.perf_counter()
    plan = Plan(
        seed, kernel, num_samples, num_warmup, num_chains, thinning, batch_size, lr, friction, temperature,
        schedule, num_cycles, precondition,
    )  # fmt: skip
    saved = Checkpoint(Path(checkpoint), _identity(plan)) if checkpoint is not None else None
    with fresh(model, args, kwargs, seed=seed) as own, Progress(disable=not progress_bar) as bar:
        run = Run.begin(_target(own, args, kwargs, plan, compile), plan)
        if (found := saved.load() if saved is not None else None) is not None:
            run.resume(*found)
        else:
            run.warm_up(bar)
        run.sample(num_samples, bar, saved)
        return _answer(own, args, kwargs, run, time.perf_counter() - began)


def extend(fit: Fit, num_samples: int, *, progress_bar: bool = False) -> Fit:
    """Return the fit with `num_samples` more draws a chain, without a new warm-up."""
    plan, began = Plan(**fit.state["plan"]), time.perf_counter()
    if plan.schedule != "constant":
        raise Unsupported(f"a {plan.schedule} schedule is planned to its end; fit again with more num_samples")
    with fresh(fit.model, fit.args, fit.kwargs, seed=plan.seed) as own, Progress(disable=not progress_bar) as bar:
        run = Run.begin(_target(own, fit.args, fit.kwargs, plan, "auto"), plan)
        run.resume(*fit.state["run"])
        run.sample(len(run.draws) + num_samples, bar)
        return _answer(fit.model, fit.args, fit.kwargs, run, fit.info["seconds"] + time.perf_counter() - began)


def _target(own: Any, args: Any, kwargs: Any, plan: Plan, compile: bool | str) -> Minibatches:
    calls = plan.num_warmup + plan.num_samples * plan.thinning
    return Minibatches.of(
        own, args, kwargs, chains=plan.num_chains, batch_size=plan.batch_size, calls=calls, compile=compile
    )


def _identity(plan: Plan) -> dict[str, Any]:
    """What must be the same in a run that goes on from a checkpoint."""
    return {name: value for name, value in asdict(plan).items() if name != "num_samples" or plan.schedule != "constant"}


def _answer(own: Any, args: Any, kwargs: Any, run: Run, seconds: float) -> Fit:
    density, plan = run.target.density, run.plan
    x = torch.stack(run.draws, 1).contiguous()  # (C, S, dim)
    sizes = torch.tensor(run.sizes, dtype=x.dtype, device=x.device).expand(len(x), -1)
    stats = {"lp": torch.stack(run.lp, 1), "step_size": sizes.clone()}
    info = {**asdict(plan), "lr": run.lr, "num_samples": x.shape[1], "seconds": seconds, "converged": True}
    info |= {"message": f"{x.shape[1]} draws from each of {len(x)} chains, {run.seen} gradients a chain"}
    info |= {"gradients": run.seen * len(x), "executor": run.target.executor, "executor_reason": run.target.reason}
    state = {"plan": asdict(plan), "run": run.state(), "mean": run.mean, "square": run.square}
    return Fit(own, args, kwargs, "stochastic_gradient", density.constrain(x), {}, stats, info, state=state)
