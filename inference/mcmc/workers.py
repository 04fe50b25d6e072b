"""Chains on several cores or machines: blocks of chains that joblib hands to processes, Dask or Ray.

Blocks are as large as the plan says, however many workers there are, and each has a generator of its own:
so the draws do not depend on who made them. Warm-up is shared, in this process; blocks draw after it.
"""

import logging
import math
import threading
from collections.abc import Mapping
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any

import cloudpickle
import torch
from joblib import Parallel, delayed
from torch import Tensor

from inference.base import Unsupported, fresh, joint
from inference.density import Density
from inference.mcmc.chains import Chains
from inference.mcmc.progress import Progress
from inference.mcmc.run import CHUNK, Run
from inference.mcmc.stop import Stop

log = logging.getLogger("inference")

ROUNDS = 10  # in which a run without goals comes back, so that an interrupt or a crash costs a tenth
LIVES = 3  # times that workers may die in a round

_alone = threading.Lock()  # a process draws one block at a time: Pyro's stack is one for all its threads


def sample(
    run: Run,
    model: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    until: int,
    workers: int | None,
    stop: Stop,
    progress_bar: bool,
) -> None:
    """Draw until so many turns are made or a goal is reached, in rounds of all blocks.

    Raises: Unsupported when the model cannot be sent to a process. RuntimeError when workers die again and again.
    """
    problem = _packed(model, args, kwargs, run.plan.seed)
    if not run.streams:
        seeds = torch.randint(2**63 - 1, (len(_parts(run)),), generator=run.generator, device=run.generator.device)
        run.streams = [torch.Generator(seeds.device).manual_seed(int(seed)).get_state() for seed in seeds]
    whole = until - run.turn
    turns = CHUNK if stop.asked else max(CHUNK, math.ceil(whole / ROUNDS))
    with Progress("draws", whole, progress_bar) as progress:
        while run.turn < until and not stop.now(run.store):
            try:
                found = _round(problem, _blocks(run), min(turns, until - run.turn), workers or 1)
            except KeyboardInterrupt:
                stop.interrupted(run.store)
                break
            x, stats = _joined(run, found)
            run.store.append(x, stats)
            if run.begin_again(stats["diverging"]):
                progress.begin_again(until)
                run.keep()
                continue
            run.keep()
            for i in range(x.shape[1]):
                progress.advance({name: value[:, i] for name, value in stats.items()})
    if not run.store.made:
        raise KeyboardInterrupt("interrupted before the first round of draws was finished")


def _round(problem: bytes, blocks: list[dict[str, Any]], turns: int, workers: int) -> list[dict[str, Any]]:
    """What every block drew; where a worker dies, all of it again, which gives the same draws."""
    for life in range(1, LIVES + 1):
        try:
            found: Any = Parallel(n_jobs=workers)(delayed(_draw)(problem, block, turns) for block in blocks)
            return found
        except BrokenProcessPool:
            if life < LIVES:
                log.warning("a worker died; the last %d draws of every chain are made again", turns)
    raise RuntimeError(f"workers died {LIVES} times in one round: memory may be short, take fewer workers or chains")


def _draw(problem: bytes, block: dict[str, Any], turns: int) -> dict[str, Any]:
    """In a worker: go on with a block for so many turns."""
    with _alone:
        model, args, kwargs, seed, density = _unpacked(problem)
        with fresh(model, args, kwargs, seed=seed):
            run = Run.resumed(density, block)
            made = [run.step() for _ in range(turns)]
    return {
        "x": torch.stack([x for x, _ in made], 1),
        "stats": {name: torch.stack([stats[name] for _, stats in made], 1) for name in made[0][1]},
        "state": run.state(),
    }


def _packed(*problem: Any) -> bytes:
    """Model, arguments and seed as bytes: closures too."""
    try:
        return cloudpickle.dumps(problem)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        said = f"workers= sends model and data to other processes, and these cannot be sent ({reason})"
        raise Unsupported(f"{said}: define the model at the top of a module") from None


@lru_cache(maxsize=1)
def _unpacked(problem: bytes) -> tuple[Any, ...]:
    """The problem with its density, which is traced once for all rounds."""
    model, args, kwargs, seed = cloudpickle.loads(problem)
    with fresh(model, args, kwargs, seed=seed) as own:
        return model, args, kwargs, seed, Density.of(joint(own, args, kwargs), args, kwargs)


def _parts(run: Run) -> list[slice]:
    """The chains of each block."""
    size, chains = run.plan.block, run.plan.num_chains
    return [slice(first, min(first + size, chains)) for first in range(0, chains, size)]


def _blocks(run: Run) -> list[dict[str, Any]]:
    """The state of each block, as a run of its own."""
    whole, blocks = run.state(), []
    for part, stream in zip(_parts(run), run.streams, strict=True):
        chains = {name: value[part].clone() for name, value in whole["chains"].items()}
        plan = asdict(replace(run.plan, num_chains=len(chains["x"]), lanes=len(chains["x"]), in_blocks=False))
        rest = {"plan": plan, "generator": stream, "streams": [], "gradients": 0, "kept": (0, 0, 0, 0)}
        blocks.append({**whole, "chains": chains, **rest})
    return blocks


def _joined(run: Run, found: list[dict[str, Any]]) -> tuple[Tensor, dict[str, Tensor]]:
    """Take over where the blocks are now; return the draws, (C, n, dim), and statistics, (C, n), of all."""
    states = [block["state"] for block in found]
    run.streams = [state["generator"] for state in states]
    run.turn = states[0]["turn"]
    run.gradients += sum(state["gradients"] for state in states)
    run.chains = Chains(**{name: torch.cat([s["chains"][name] for s in states]) for name in states[0]["chains"]})
    stats = {name: torch.cat([block["stats"][name] for block in found]) for name in found[0]["stats"]}
    return torch.cat([block["x"] for block in found]), stats
