"""Gibbs sampling, for models that know the law of each block of latents given all others."""

import time
from collections.abc import Mapping
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from inference.base import Fit, Unsupported, check_data, fresh
from ppmodels.base import HasBlocks, Theta

CHAINS, WARMUP, SAMPLES = 4, 500, 1000  # where nothing else is said: sweeps need no tuning


def fit(
    model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Mapping[str, Any], progress_bar: bool
) -> Fit:
    """Run the model's own sweeps in several chains, one after the other; labels of rows are summed over, not kept.

    Raises: Unsupported when the model has no blocks in closed form.
    """
    if not isinstance(model, HasBlocks):
        name = getattr(model, "__name__", type(model).__name__)
        raise Unsupported(f"{name} has no sweep over blocks in closed form; kernel='gibbs' needs one")
    began, seed = time.perf_counter(), options["seed"]
    chains = options["num_chains"] or CHAINS
    samples, warmup = options["num_samples"] or SAMPLES, options["num_warmup"]
    warmup = WARMUP if warmup is None else warmup
    found: list[list[Theta]] = []
    with Progress(disable=not progress_bar) as bar:
        task = bar.add_task("gibbs", total=chains * (warmup + samples))
        for chain in range(chains):
            with fresh(model, args, kwargs, seed=seed + 7919 * chain) as own:
                check_data(own, args, kwargs)
                kept, latents = [], None
                for _ in range(warmup + samples):
                    latents = own.sweep(args[0], latents)
                    kept.append({name: _as(value) for name, value in latents.items() if value.is_floating_point()})
                    bar.advance(task)
                found.append(kept)
    info = {"seed": seed, "seconds": time.perf_counter() - began, "converged": True, "kernel": "gibbs"}
    info |= {"message": f"{samples} draws from each of {chains} chains", "num_chains": chains}
    info |= {"num_samples": samples, "num_warmup": warmup}
    draws = _stacked([kept[warmup:] for kept in found])
    before = _stacked([kept[:warmup] for kept in found]) if options["save_warmup"] and warmup else {}
    return Fit(model, args, kwargs, "mcmc", draws, info=info, warmup_draws=before)


def refuse(goals: Mapping[str, Any]) -> None:
    """Raise Unsupported naming the first goal that is set: sweeps run to the last draw, in this process."""
    for name, value in goals.items():
        if value is not None:
            raise Unsupported(f"kernel='gibbs' runs to its last draw: {name} needs one of the other kernels")


def _as(value: Tensor) -> Tensor:
    return value.to(torch.get_default_dtype())


def _stacked(chains: list[list[Theta]]) -> dict[str, Tensor]:
    """Draws by site, (C, S, *site)."""
    return {n: torch.stack([torch.stack([each[n] for each in kept]) for kept in chains]) for n in chains[0][0]}
