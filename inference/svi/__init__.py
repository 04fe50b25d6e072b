"""Stochastic variational inference: the guide that is nearest to the posterior, by ascending the ELBO."""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyro
import torch
from rich.progress import Progress
from torch import Tensor

from inference.base import Draws, Fit, Unsupported, check_data, fresh, joint
from inference.density import Density
from inference.psis import psis
from inference.svi import blocks
from inference.svi.flat import find, flat_guide, refuse
from inference.svi.importance import ImportanceELBO
from inference.svi.objective import AUTOMATIC, Objective, Survey
from inference.svi.options import Options
from inference.svi.stream import Stream
from inference.svi.weighted import WeightedELBO
from inference.tracing.learned import Untouched, in_store
from inference.training.average import write
from inference.training.checkpoint import Checkpoint
from inference.training.held_out import HeldOut
from inference.training.loop import Training
from inference.training.plateau import Plateau
from ppmodels.base import Data

__all__ = ["ImportanceELBO", "Stream", "WeightedELBO", "fit", "flat_guide"]

NUMBERS = ("num_steps", "lr", "batch_size", "num_particles", "num_restarts", "num_samples", "tol", "patience")
NUMBERS += ("gradient", "divergence")


def fit(
    model: Any,
    *args: Any,
    guide: Any = None,
    num_steps: int = 10_000,
    lr: float | None = None,
    batch_size: int | None = None,
    num_particles: int | None = None,
    num_restarts: int | None = None,
    num_samples: int = 1000,
    tol: float = 1e-5,
    patience: int = 2,
    seed: int = 0,
    compile: bool | str = "auto",
    progress_bar: bool = False,
    checkpoint: str | Path | None = None,
    loss: Any = None,
    held_out: Data | None = None,
    training: Mapping[str, Any] | None = None,
    gradient: str = "path",
    divergence: str = "reverse",
    **kwargs: Any,
) -> Fit:
    """Fit a guide to the posterior, and with it whatever the model learns; independent draws as chain 1.

    guide: "hand" is the model's own, and the default where it has one; "mean-field" is the default else,
        "full-rank", "low-rank" and "flow" are the others by name; "blocks" is coordinate ascent by a model that
        knows each step (`HasBlocks`); or any Pyro guide, or a class of `pyro.infer.autoguide`. A model without latents
        needs none: its likelihood is maximised.
    num_steps: steps at most; the climb ends earlier once the ELBO stands still at every learning rate.
    lr: first learning rate; 0.1 posterior standard deviations for a guide by name, else 0.01.
    batch_size: rows a step, without replacement within an epoch, scaled up to the whole set.
    num_particles: draws a step, 16 for a guide by name, else 1. num_restarts: 4 and 1; the highest ELBO wins.
    tol, patience: a window of steps gains nothing when its mean ELBO rises by less than tol (1 + |ELBO|),
        or less than two standard errors; after `patience` such windows lr falls by sqrt(10), five times.
    compile: True, False or "auto", for guides by name; otherwise False computes each step by the program itself.
    checkpoint: a file to go on from, if it is there, and to write to; the result is the same to the bit.
    loss: the bound, where it is not the ELBO: `WeightedELBO` (annealed, beta, capacity, free bits),
        `ImportanceELBO`, or one of `pyro.infer`.
    held_out: rows that are not trained on; once their bound has not risen for 5 `patience` windows the climb ends,
        and the best parameters are kept.
    training: more that `inference.training.Training` takes: clip, ema, groups, optimiser, precision, schedule, window.
    gradient: of a guide by name: "path" (reparametrised), "score" (needs no slope of the density, and is far noisier),
        "natural" (mean-field and full-rank), or "fixed": the same draws at every step, so that L-BFGS can climb; the
        covariance by linear response is then in `state["linear_response"]`, unconstrained coordinates (mean-field).
    divergence: "reverse" is KL(q || p), the ELBO's; "forward" is KL(p || q), whose best normal has p's own moments.

    Returns: a Fit with trace `elbo` and `held_out` (for as many rows), and info `converged`, `message`, `guide`,
        `elbo`, `elbo_se`, `khat`, `learned`. What was learned is in `state["parameters"]` by name.
    Raises: Unsupported where model and guide do not go together; FloatingPointError for a NaN loss.
    """
    options = Options(
        guide, num_steps, lr, batch_size, num_particles, num_restarts, num_samples, tol, patience, loss, held_out,
        training, gradient, divergence,
    )  # fmt: skip
    options.refuse(model, args)
    run = Run(model, args, kwargs, options, seed, compile, Path(checkpoint) if checkpoint else None, progress_bar)
    return run.fit()


@dataclass(frozen=True)
class Run:
    """One call of `fit`."""

    model: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: Options
    seed: int
    compile: bool | str
    checkpoint: Path | None
    progress_bar: bool

    def fit(self) -> Fit:
        began, o = time.perf_counter(), self.options
        with Progress(disable=not self.progress_bar) as bar:
            with fresh((self.model, o.guide), self.args, self.kwargs, seed=self.seed) as (own, _):
                survey = Survey.of(joint(own, self.args, self.kwargs), self.args, self.kwargs)
                name = o.name(own, survey)
                if o.held_out is not None:
                    check_data(own, (o.held_out,), {})  # refuses rows that cannot be
                flat = name in AUTOMATIC and o.plain and not survey.learned and not survey.random_rows
                if o.special and not flat:
                    raise Unsupported(f"{o.special} is for a guide by name, all rows, and nothing else to learn")
                refuse(name, o.gradient, o.divergence, self.checkpoint)
                best = self._in_blocks(own, bar) if name == "blocks" else None
                best = self._on_density(own, name, bar) if flat else best
            if best is None:
                best = max((self._on_program(name, survey, r, bar) for r in range(o.num_restarts or 1)), key=_elbo)
        options = {k: getattr(o, k) for k in NUMBERS if getattr(o, k) is not None}
        info = {**options, **best.info, "guide": name, "seed": self.seed, "seconds": time.perf_counter() - began}
        return replace(best, info=info)

    def _on_density(self, own: Any, name: str, bar: Progress) -> Fit:
        """A guide by name, on the flat density."""
        o = self.options
        density = Density.of(joint(own, self.args, self.kwargs), self.args, self.kwargs)
        guide, particles, restarts = flat_guide(name, density.dim), o.num_particles or 16, o.num_restarts or 4
        sizes = {"dim": density.dim, "restarts": restarts, "particles": particles}
        saved = self._checkpoint(guide=name, gradient=o.gradient, **sizes)
        found = find(density, guide, o, self.compile, saved, _shown(bar, o.num_steps))
        with torch.no_grad():
            x, log_q, log_p = found.draw(guide, o.num_samples)
            draws = {site: value[None] for site, value in density.constrain(x).items()}
        info = _accuracy(log_p - log_q) | found.info | {"learned": []}
        return self._answer(own, draws, found.objective, info, {"phi": found.phi} | found.state)

    def _in_blocks(self, own: Any, bar: Progress) -> Fit:
        """The model's own coordinate ascent."""
        o = self.options
        sizes = {"num_restarts": o.num_restarts or 10, "num_steps": o.num_steps, "tol": 1e-4 * o.tol}
        found, ends = blocks.climb(own, self.args[0], **sizes, show=_shown(bar, o.num_steps))
        said = "the bound stands still" if found.converged else f"not converged in {o.num_steps} steps"
        info = {"converged": found.converged, "message": said, "steps": len(found.bounds), "restarts": ends}
        info |= {"elbo": found.bounds[-1], "elbo_se": 0.0, "learned": []}
        return self._answer(own, blocks.drawn(found, o.num_samples), torch.tensor(found.bounds), info, None)

    def _on_program(self, name: str, survey: Survey, restart: int, bar: Progress) -> Fit:
        """Any guide and any parameters, by Pyro's own estimators of the gradient."""
        o, seed = self.options, self.seed + 7919 * restart
        with fresh((self.model, o.guide), self.args, self.kwargs, seed=seed) as (own, guide):
            with nullcontext() if own is not self.model else Untouched():
                guide = guide if callable(guide) else name
                objective = Objective.of(own, self.args, self.kwargs, guide, survey, o.num_particles or 1, o.loss)
                training = self._training(name, restart, bar, objective)
                training.run(objective.loss, _parameters, objective.buffers)
                if training.average is not None and o.held_out is None:
                    write(_parameters(), training.average.values)
                parameters = in_store()
                draws, info = self._draws(objective, survey, parameters)
            info |= _ended(training) | {"learned": sorted(parameters), "executor": training.executor}
            curves = training.curves()
            if "held_out" in curves:  # looked at once a window
                curves["held_out"] = curves["held_out"].repeat_interleave(training.stride)[: len(training.objective)]
            fit = self._answer(own, draws, curves.pop("objective"), info, {"parameters": parameters})
            return replace(fit, trace=fit.trace | curves)

    def _training(self, name: str, restart: int, bar: Progress, objective: Objective) -> Training:
        o, rows = self.options, self.args[0].rows if self.args and isinstance(self.args[0], Data) else 0
        saved = self._checkpoint(restart, guide=name, rows=rows, batch_size=o.batch_size, start=restart)
        held = None if o.held_out is None else _held_out(objective, o.held_out, rows, 5 * o.patience)
        return o.prepare(
            rows=rows, seed=self.seed, checkpoint=saved, callbacks=[_shown(bar, o.num_steps)], held_out=held,
            before=objective.at, compile=self.compile,
        )  # fmt: skip

    def _draws(self, objective: Objective, survey: Survey, parameters: Draws) -> tuple[Draws, dict[str, Any]]:
        """Draws of the guide; the parameters themselves, as one draw, where nothing is latent."""
        if objective.latent:
            draws, log_ratio = objective.draw(self.options.num_samples, (*objective.latent, *survey.computed))
            return {name: value[None] for name, value in draws.items()}, _accuracy(log_ratio)
        with torch.no_grad():
            elbo = -float(objective.loss(None))
        own = {name: value[None, None] for name, value in parameters.items() if "$$$" not in name}
        return own, {"elbo": elbo, "elbo_se": 0.0}

    def _checkpoint(self, restart: int = 0, **run: Any) -> Checkpoint | None:
        if self.checkpoint is None:
            return None
        o = self.options
        run |= {"seed": self.seed, "lr": o.lr, "tol": o.tol, "patience": o.patience}
        path = self.checkpoint.with_name(f"{self.checkpoint.name}.{restart}") if restart else self.checkpoint
        return Checkpoint(path, run)

    def _answer(self, own: Any, draws: Draws, elbo: Tensor, info: dict[str, Any], state: Any) -> Fit:
        return Fit(own, self.args, self.kwargs, "svi", draws, {"elbo": elbo}, info=info, state=state)


def _accuracy(log_ratio: Tensor) -> dict[str, float]:
    """The ELBO with its Monte-Carlo error, and how far importance weights can be trusted."""
    number = len(log_ratio)
    error = float(log_ratio.std()) / math.sqrt(number) if number > 1 else math.nan
    found = {"elbo": float(log_ratio.mean()), "elbo_se": error}
    return found | ({"khat": psis(log_ratio)[1]} if number >= 25 else {})


def _ending(plateau: Plateau, steps: int) -> dict[str, Any]:
    return {"converged": plateau.converged, "message": plateau.message(), "steps": steps}


def _ended(training: Training) -> dict[str, Any]:
    held_out, steps = training.held_out, len(training.objective)
    if held_out is not None and held_out.stopped:
        return {"converged": True, "message": "the held-out bound no longer rises", "steps": steps}
    if training.plateau is None:
        return {"converged": True, "message": "the schedule was followed to its end", "steps": steps}
    return _ending(training.plateau, steps)


def _held_out(objective: Objective, data: Data, rows: int, patience: int) -> HeldOut:
    """The bound of rows held out, for as many rows as are trained on: so that both are on one scale."""
    return HeldOut(lambda: objective.loss(None, data) * (rows / data.rows), patience)


def _parameters() -> dict[str, Tensor]:
    return dict(pyro.get_param_store().named_parameters())


def _elbo(fit: Fit) -> float:
    elbo = fit.info["elbo"]
    return elbo if math.isfinite(elbo) else -math.inf


def _shown(bar: Progress, num_steps: int) -> Callable[[int, float], None]:
    """A callback that moves the progress bar."""
    task = bar.add_task("svi", total=num_steps)
    return lambda step, elbo: bar.update(task, completed=step, description=f"svi, ELBO {elbo:.4g}")
