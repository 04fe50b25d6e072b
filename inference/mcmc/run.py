"""A run as an object: start, warm-up, draws in chunks, and a state from which it goes on bit for bit."""

import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inference.density import Batched, Density
from inference.mcmc import kernels
from inference.mcmc.chains import Chains, Kernel, Tuned
from inference.mcmc.metric import Metric
from inference.mcmc.plan import Plan, complete
from inference.mcmc.progress import Progress
from inference.mcmc.start import start
from inference.mcmc.stop import Stop
from inference.mcmc.store import Store, write
from inference.mcmc.warmup import warm_up

log = logging.getLogger("inference")

CHUNK = 50  # turns between two looks at the clock, the goals and the disk


@dataclass
class Run:
    """Chains, what was tuned, and all that decides the next draw."""

    density: Density
    plan: Plan
    batched: Batched
    kernel: Kernel
    chains: Chains
    tuned: Tuned
    generator: torch.Generator
    calls: int = 0  # gradients planned, which decided whether they are compiled
    turn: int = 0
    gradients: int = 0
    store: Store = field(default_factory=Store)
    warmup: Store = field(default_factory=Store)

    def state(self) -> dict[str, Any]:
        """Tensors and numbers from which `resumed` makes this run again."""
        c, t = self.chains, self.tuned
        return {
            "plan": asdict(self.plan),
            "chains": {"x": c.x, "log_prob": c.log_prob, "grad": c.grad},
            "tuned": {"step_size": t.step_size, "length": t.length, "factor": t.metric.factor},
            "generator": self.generator.get_state(),
            "turn": self.turn,
            "gradients": self.gradients,
            "chunks": len(self.store.x),
            "calls": self.calls,
        }

    @classmethod
    def resumed(cls, density: Density, state: dict[str, Any], folder: Path | None = None) -> "Run":
        """Return the run of this state; with a folder, with the draws that lie there."""
        plan, tuned = Plan(**state["plan"]), state["tuned"]
        generator = torch.Generator(state["chains"]["x"].device)
        generator.set_state(state["generator"])
        batched = _batched(density, plan, plan.num_chains, state["calls"])
        chains = Chains(**{name: _innermost(value) for name, value in state["chains"].items()})
        metric = Metric(tuned["factor"])
        kernel = kernels.make(plan, batched, generator)
        store = Store(folder)
        if folder is not None:
            store.load(state["chunks"])
        return cls(
            density,
            plan,
            batched,
            kernel,
            chains,
            Tuned(tuned["step_size"], tuned["length"], metric),
            generator,
            state["calls"],
            state["turn"],
            state["gradients"],
            store,
        )

    def step(self) -> dict[str, Tensor]:
        """Move every chain once; where memory does not suffice, in halves from then on."""
        before = self.generator.get_state()
        while True:
            try:
                self.chains, stats = self.kernel(self.chains, self.tuned, self.turn)
                break
            except (MemoryError, RuntimeError) as error:
                if not _out_of_memory(error) or self.batched.parts >= self.plan.num_chains:
                    raise
                self.generator.set_state(before)
                self.batched = self.density.in_parts(self.plan.num_chains, 2 * self.batched.parts)
                self.kernel = kernels.make(self.plan, self.batched, self.generator)
                log.warning("out of memory; the chains move in %d parts from here on", self.batched.parts)
        self.turn += 1
        self.gradients += int(stats["n_steps"].sum())
        return stats


def begin(density: Density, options: dict[str, Any], checkpoint: str | Path | None, progress_bar: bool) -> Run:
    """Start and warm up a run, or go on with the one that the checkpoint's folder keeps.

    Raises: ValueError when the folder keeps a run with other options.
    """
    plan = complete(options, density)
    folder = Path(checkpoint) if checkpoint is not None else None
    if folder is not None and (folder / "state.pt").exists():
        state = torch.load(folder / "state.pt", weights_only=True)
        other = [name for name, value in asdict(plan).items() if state["plan"][name] != value]
        if other and other != ["num_samples"]:
            raise ValueError(f"{folder} keeps a run with other {', '.join(other)}; choose another folder")
        return Run.resumed(density, state | {"plan": asdict(plan)}, folder)
    generator = torch.Generator(density.device).manual_seed(plan.seed % 2**63)
    calls = plan.warmup_calls
    together = _batched(density, plan, plan.warmup_chains, calls)
    chains, tuned, spent = start(density, together, plan, generator)
    kernel, warmup = kernels.make(plan, together, generator), Store()
    kept: tuple[list[Tensor], list[dict[str, Tensor]]] = ([], [])
    with Progress("warm-up", plan.num_warmup, progress_bar) as progress:

        def watch(turn: int, chains: Chains, stats: dict[str, Tensor], tuned: Tuned) -> None:
            progress.advance(stats)
            if plan.save_warmup:
                kept[0].append(chains.x[: plan.num_chains])
                kept[1].append({name: value[: plan.num_chains] for name, value in stats.items()})

        chains, tuned = warm_up(kernel, chains, tuned, plan.num_warmup, plan.target_accept_prob, watch)
    warmup.add(*kept)
    batched = together
    if plan.warmup_chains != plan.num_chains:
        few = torch.arange(plan.num_chains)
        calls = plan.draw_calls(tuned.length / tuned.step_size + 0.5)
        chains, batched = chains.select(few), _batched(density, plan, plan.num_chains, calls)
        chains = Chains(_innermost(chains.x), chains.log_prob, _innermost(chains.grad))
        kernel = kernels.make(plan, batched, generator)
    run = Run(density, plan, batched, kernel, chains, tuned, generator, calls, 0, spent, Store(folder), warmup)
    if folder is not None:
        write(folder / "state.pt", run.state())
    return run


def sample(run: Run, until: int, stop: Stop, progress_bar: bool) -> None:
    """Draw until so many turns are made or a goal is reached; an interrupt keeps what is finished."""
    folder = run.store.folder
    with Progress("draws", until - run.turn, progress_bar) as progress:
        while run.turn < until and not stop.now(run.store):
            x: list[Tensor] = []
            stats: list[dict[str, Tensor]] = []
            try:
                while run.turn < until and len(x) < CHUNK:
                    stats.append(run.step())
                    x.append(run.chains.x)
                    progress.advance(stats[-1])
            except KeyboardInterrupt:
                run.store.add(x, stats[: len(x)])
                stop.interrupted(run.store)
                break
            run.store.add(x, stats)
            if folder is not None:
                write(folder / "state.pt", run.state())
    if not run.store.x:
        raise KeyboardInterrupt("interrupted before the first draw was finished")


def _batched(density: Density, plan: Plan, chains: int, calls: int) -> Batched:
    return density.batched(chains, calls=calls, compile=plan.compile)


def _innermost(x: Tensor) -> Tensor:
    return x.mT.contiguous().mT if x.ndim == 2 else x


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error)
