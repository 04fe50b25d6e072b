"""A run as an object: a climb, a warm-up, draws step by step, and a state from which it goes on bit for bit."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from inference.density.executor import chains_innermost
from inference.density.minibatch import Minibatches
from inference.optimum.scaling import scales, stiffness
from inference.stochastic_gradient.moves import BETA1, BETA2, MOVES, climb
from inference.stochastic_gradient.plan import Plan
from inference.training.checkpoint import Checkpoint
from inference.training.minibatches import minibatch

CHUNK = 100  # steps between two looks at the chains, the progress bar and the disk
CLIMB = 0.05  # Adam's rate on the way up
SAFE = {"sgld": 0.4, "sghmc": 0.25}  # the default step size, over the largest curvature


@dataclass
class Run:
    """Chains x and momenta v, (C, dim), what was tuned, the draws so far, and moments of every step since.

    t: steps after warm-up. mean, square (C, dim): running averages of x and x^2.
    """

    plan: Plan
    target: Minibatches
    x: Tensor
    v: Tensor
    generator: torch.Generator
    scale: Tensor
    lr: float = 0.0
    t: int = 0
    seen: int = 0  # batches looked at, warm-up included
    mean: Tensor = field(default_factory=lambda: torch.zeros(0))
    square: Tensor = field(default_factory=lambda: torch.zeros(0))
    draws: list[Tensor] = field(default_factory=list)
    lp: list[Tensor] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)

    @classmethod
    def begin(cls, target: Minibatches, plan: Plan) -> "Run":
        """Return chains at random places, before any warm-up."""
        generator = torch.Generator(target.density.device).manual_seed(plan.seed % 2**63)
        x = chains_innermost(target.density.start(target.chains, generator))
        return cls(plan, target, x, torch.zeros_like(x), generator, torch.ones_like(x[0]), plan.lr or 0.0)

    def warm_up(self, bar: Progress) -> None:
        """Climb, learn the scales, and run without keeping anything."""
        task = bar.add_task("warm-up", total=self.plan.num_warmup)
        half = self.plan.num_warmup // 2
        self._climb(half)
        bar.update(task, completed=half)
        if self.plan.precondition and half:
            self.scale = scales(self._gradient, self.x, self.generator)
        if self.plan.lr is None:
            self.lr = self._stable(self.generator)
        for done in range(half, self.plan.num_warmup):
            self._move(self.lr, self.plan.temperature)
            if (done + 1) % CHUNK == 0:
                self._refuse_diverged()
                bar.update(task, completed=done + 1)
        self._refuse_diverged()
        if self.plan.lr is None:  # chains that had not arrived may have come to a steeper place
            self.lr = min(self.lr, self._stable(self.generator.clone_state()))
        bar.update(task, completed=self.plan.num_warmup)
        self.mean, self.square = torch.zeros_like(self.x), torch.zeros_like(self.x)

    def sample(self, number: int, bar: Progress, saved: Checkpoint | None = None) -> None:
        """Step until so many draws are kept; an interrupt keeps what there is."""
        task = bar.add_task("draws", total=number, completed=len(self.draws))
        size = self.plan.sizes(self.lr)
        while len(self.draws) < number:
            self.t += 1
            log_prob = self._move(size(self.t), self.plan.heat(self.t))
            self.mean += (self.x - self.mean) / self.t
            self.square += (self.x.square() - self.square) / self.t
            if self.plan.draws_at(self.t):
                self.draws.append(self.x.clone())
                self.lp.append(log_prob)
                self.sizes.append(size(self.t))
            if self.t % CHUNK == 0 or len(self.draws) == number:
                self._refuse_diverged()
                bar.update(task, completed=len(self.draws))
                if saved is not None and (saved.due() or len(self.draws) == number):
                    saved.save(*self.state())

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and facts from which `resume` makes this run again."""
        tensors = {"x": self.x, "v": self.v, "scale": self.scale, "mean": self.mean, "square": self.square}
        tensors |= {"generator": self.generator.get_state()}
        tensors |= {"draws": torch.stack(self.draws, 1), "lp": torch.stack(self.lp, 1)} if self.draws else {}
        return tensors, {"lr": self.lr, "t": self.t, "seen": self.seen, "sizes": self.sizes}

    def resume(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Go on from an earlier run's state."""
        for name in ("x", "v", "scale", "mean", "square"):
            value = tensors[name].to(self.x.device)
            setattr(self, name, value if name == "scale" else chains_innermost(value).clone())
        self.generator.set_state(tensors["generator"])
        self.draws = list(tensors["draws"].unbind(1)) if "draws" in tensors else []
        self.lp = list(tensors["lp"].unbind(1)) if "lp" in tensors else []
        self.lr, self.t, self.seen, self.sizes = facts["lr"], facts["t"], facts["seen"], list(facts["sizes"])

    def _stable(self, generator: torch.Generator) -> float:
        """The step size that is safe where the chains are."""
        largest = stiffness(self._gradient, self.x, self.scale, generator)
        return SAFE[self.plan.kernel] / max(largest, 1.0)

    def _climb(self, steps: int) -> None:
        """Adam's ascent: near the mass, where Langevin's steps are worth taking."""
        step, first, second = self.target.fuse(climb), torch.zeros_like(self.x), torch.zeros_like(self.x)
        for t in range(1, steps + 1):
            rate = CLIMB * 0.5 * (1 + math.cos(math.pi * t / steps))
            knobs = self.x.new_tensor([rate, 1 / (1 - BETA1**t), 1 / (1 - BETA2**t)])
            self.x, first, second, _ = step(self._rows(), self.x, first, second, knobs)

    def _move(self, size: float, temperature: float) -> Tensor:
        """One step of every chain; return the log density before it, (C,)."""
        step = self.target.fuse(MOVES[self.plan.kernel])
        shape = self.x.shape[::-1]
        z = torch.randn(shape, generator=self.generator, dtype=self.x.dtype, device=self.x.device).mT
        knobs = self.x.new_tensor([size, self.plan.friction, temperature])
        self.x, self.v, log_prob, _ = step(self._rows(), self.x, self.v, z, self.scale, knobs)
        return log_prob

    def _rows(self) -> Tensor | None:
        self.seen += 1
        return self._batch(self.seen - 1)

    def _gradient(self, x: Tensor) -> Tensor:
        """The gradient by the same rows in every call, so that differences are the curvature's."""
        rows = self._batch(0)
        return self.target(None, x)[1] if rows is None else self.target.together(rows, x)[1]

    def _batch(self, number: int) -> Tensor | None:
        """The rows of a step: a function of its number, so that a resumed run goes on with the same."""
        if self.plan.batch_size is None:
            return None
        return minibatch(self.target.density.args[0].rows, self.plan.batch_size, number, self.plan.seed)

    def _refuse_diverged(self) -> None:
        bad = (~self.x.isfinite()).nonzero()
        if not len(bad):
            return
        chain, place = bad[0].tolist()
        site = next(s.name for s in self.target.density.layout.sites if s.start <= place < s.stop)
        raise FloatingPointError(
            f"step {self.t or 'of the warm-up'}: chain {chain} has left the numbers at site {site!r}; "
            f"lower lr, which is {self.lr:.3g}, or raise batch_size"
        )
