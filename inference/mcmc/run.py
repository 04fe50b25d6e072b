"""A run as an object: start, warm-up, draws in chunks, and a state from which it goes on bit for bit."""

import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inference.density import Batched, Density
from inference.mcmc import centring
from inference.mcmc.centring import Coordinates
from inference.mcmc.chains import Chains, Tuned
from inference.mcmc.memory import Sparing
from inference.mcmc.metric import Metric
from inference.mcmc.plan import Plan, complete
from inference.mcmc.progress import Progress
from inference.mcmc.stop import Stop
from inference.mcmc.store import Store, Turn, write
from inference.mcmc.warmup import warm_up

log = logging.getLogger("inference")

CHUNK = 50  # turns between two looks at the clock, the goals and the disk
HALVINGS = 2  # of the step size, each with all draws made again, before divergences are left in


@dataclass
class Run:
    """Chains, what was tuned, and all that decides the next draw.

    streams: states of the blocks' own generators, where chains are drawn in blocks.
    halved: how often the step size was halved because trajectories diverged.
    """

    coordinates: Coordinates
    plan: Plan
    batched: Batched
    kernel: Sparing
    chains: Chains
    tuned: Tuned
    generator: torch.Generator
    calls: int = 0  # gradients planned, which decided whether they are compiled
    turn: int = 0
    gradients: int = 0
    store: Store = field(default_factory=Store)
    warmup: Store = field(default_factory=Store)
    streams: list[Tensor] = field(default_factory=list)
    halved: int = 0

    @property
    def density(self) -> Density:
        """The density whose coordinates the chains move in."""
        return self.coordinates.density

    def state(self) -> dict[str, Any]:
        """Tensors and numbers from which `resumed` makes this run again."""
        c, t = self.chains, self.tuned
        return {
            "plan": asdict(self.plan),
            "chains": {"x": c.x, "log_prob": c.log_prob, "grad": c.grad},
            "tuned": {"step_size": t.step_size, "length": t.length, "factor": t.metric.factor},
            "generator": self.generator.get_state(),
            "streams": self.streams,
            "turn": self.turn,
            "gradients": self.gradients,
            "kept": (self.store.chunks, self.store.made, self.warmup.chunks, self.warmup.made),
            "calls": self.calls,
            "halved": self.halved,
            "centred": self.coordinates.centred,
        }

    @classmethod
    def resumed(cls, density: Density, state: dict[str, Any], folder: Path | None = None) -> "Run":
        """Return the run of this state; with a folder, with the draws that lie there.

        Raises: ValueError when the state is of another model, or of other data.
        """
        plan, tuned, kept = Plan(**state["plan"]), state["tuned"], state["kept"]
        generator = torch.Generator(state["chains"]["x"].device)
        generator.set_state(state["generator"])
        chains = Chains(**{name: _innermost(value) for name, value in state["chains"].items()})
        coordinates = Coordinates.of(density, state["centred"])
        density = coordinates.density
        if not _is_at_home(density, chains):
            raise ValueError(f"{folder or 'this state'} keeps a run of another model, or of other data")
        batched = density.batched(plan.lanes, calls=state["calls"], compile=plan.compile)
        return cls(
            coordinates,
            plan,
            batched,
            Sparing(density, batched, plan, generator),
            chains,
            Tuned(tuned["step_size"], tuned["length"], Metric(tuned["factor"])),
            generator,
            state["calls"],
            state["turn"],
            state["gradients"],
            *(Store(folder, *kept[:2]), Store(folder / "warmup", *kept[2:])) if folder else (Store(), Store()),
            list(state["streams"]),
            state["halved"],
        )

    def step(self) -> Turn:
        """Move every chain once; an interrupt leaves all as it was."""
        chains, stats = self.kernel(self.chains, self.tuned, self.turn)
        self.chains, self.turn = chains, self.turn + 1
        self.gradients += int(stats["n_steps"][: self.plan.num_chains].sum())
        return chains.x, stats

    def begin_again(self, diverging: Tensor) -> bool:
        """Where one of these trajectories diverged, forget all draws, halve the step, and say so.

        A divergence is a place whose curvature the steps cannot follow, and that chains therefore seldom enter. Draws
        of an earlier call are not forgotten, and after some halvings what diverges is left for `diagnose` to tell of.
        """
        if self.turn != self.store.made or self.halved == HALVINGS or not bool(diverging.any()):
            return False
        log.info("%d trajectories diverged; drawing again with half the step", int(diverging.sum()))
        self.halved, self.tuned = self.halved + 1, self.tuned.with_step(0.5 * self.tuned.step_size)
        self.store, self.turn = Store(self.store.folder), 0
        return True

    def keep(self) -> None:
        """Write the state, where there is a folder."""
        if self.store.folder is not None:
            write(self.store.folder / "state.pt", self.state())


def begin(
    density: Density, options: dict[str, Any], checkpoint: str | Path | None, stop: Stop, progress_bar: bool
) -> Run:
    """Start and warm up a run, or go on with the one that the checkpoint's folder keeps.

    Raises: ValueError when the folder keeps another run. TimeoutError when the time is over before the warm-up is.
    """
    plan = complete(options, density)
    folder = Path(checkpoint) if checkpoint is not None else None
    if folder is not None and (state := _kept(folder, plan)):
        return Run.resumed(density, state | {"plan": asdict(plan)}, folder)
    generator = torch.Generator(density.device).manual_seed(plan.seed % 2**63)
    calls, found = plan.warmup_calls, centring.begin(density, plan, generator)
    coordinates, batched, spent = found.coordinates, found.batched, found.spent
    density, kernel = coordinates.density, Sparing(coordinates.density, batched, plan, generator)
    warmup = Store(folder / "warmup" if folder else None)
    chains, tuned = _warmed_up(kernel, found.chains, found.tuned, plan, warmup, stop, progress_bar)
    if plan.warmup_chains != plan.lanes:
        calls = plan.draw_calls(tuned.length / tuned.step_size + 0.5)
        batched = density.batched(plan.lanes, calls=calls, compile=plan.compile)
        chains = chains.select(torch.arange(plan.lanes))
        chains = Chains(_innermost(chains.x), chains.log_prob, _innermost(chains.grad))
        kernel = Sparing(density, batched, plan, generator)
    run = Run(coordinates, plan, batched, kernel, chains, tuned, generator, calls, 0, spent, Store(folder), warmup)
    run.keep()
    return run


def sample(run: Run, until: int, stop: Stop, progress_bar: bool) -> None:
    """Draw until so many turns are made or a goal is reached; an interrupt keeps what is finished."""
    with Progress("draws", until - run.turn, progress_bar) as progress:
        while run.turn < until and not stop.now(run.store):
            turns: list[Turn] = []
            try:
                while run.turn < until and len(turns) < CHUNK and not (turns and stop.late):
                    turns.append(run.step())
                    progress.advance(turns[-1][1])
            except KeyboardInterrupt:
                run.store.add(turns, run.plan.num_chains)
                stop.interrupted(run.store)
                run.keep()
                break
            run.store.add(turns, run.plan.num_chains)
            if run.begin_again(torch.stack([stats["diverging"] for _, stats in turns])):
                progress.begin_again(until)
            run.keep()
    if not run.store.made:
        raise KeyboardInterrupt("interrupted before the first draw was finished")


def _kept(folder: Path, plan: Plan) -> dict[str, Any] | None:
    """The state in the folder, where there is one of this plan."""
    path = folder / "state.pt"
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"checkpoint is a folder; {folder} is a file")
    if not path.exists():
        return None
    try:
        state = torch.load(path, weights_only=True)
        before = state["plan"]
    except Exception as error:
        raise ValueError(f"{path} is not the state of a run ({type(error).__name__}); choose another folder") from None
    other = [name for name, value in asdict(plan).items() if before.get(name) != value and name != "num_samples"]
    if other:
        raise ValueError(f"{folder} keeps a run with other {', '.join(other)}; choose another folder")
    return state


def _warmed_up(
    kernel: Sparing, chains: Chains, tuned: Tuned, plan: Plan, kept: Store, stop: Stop, progress_bar: bool
) -> tuple[Chains, Tuned]:
    """Chains after the warm-up, and what it tuned; its draws in the store where they are wanted."""
    turns: list[Turn] = []
    few = plan.num_chains
    with Progress("warm-up", plan.num_warmup, progress_bar) as progress:

        def watch(turn: int, chains: Chains, stats: dict[str, Tensor], tuned: Tuned) -> None:
            progress.advance(stats)
            if stop.late:
                said = f"timeout of {stop.timeout:g} s in the warm-up, at {turn + 1} of {plan.num_warmup} turns"
                raise TimeoutError(f"{said}: nothing is drawn yet; allow more time or a shorter num_warmup")
            if plan.save_warmup:
                turns.append((chains.x[:few], {name: value[:few] for name, value in stats.items()}))

        found = warm_up(kernel, chains, tuned, plan.num_warmup, plan.target_accept_prob, watch)
    kept.add(turns)
    return found


def _is_at_home(density: Density, chains: Chains) -> bool:
    """Does the density have at the first chain the value that the chain remembers?"""
    x, remembered = chains.x[0], chains.log_prob[0]
    if len(x) != density.dim:
        return False
    return bool(torch.isclose(density.log_prob(x).detach(), remembered, rtol=1e-6, atol=1e-6))


def _innermost(x: Tensor) -> Tensor:
    return x.mT.contiguous().mT if x.ndim == 2 else x
