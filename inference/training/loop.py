"""The training loop: minibatches, one optimiser, a stopping rule, checkpoints with exact resume."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor, nn

from inference.training import processes
from inference.training.average import Average, swapped, write
from inference.training.checkpoint import Checkpoint
from inference.training.held_out import HeldOut
from inference.training.minibatches import minibatch
from inference.training.optimiser import FUSED, Groups, Optimiser
from inference.training.plateau import Plateau
from inference.training.recording import Recorded
from inference.training.resume import resume, save

Parameters = Mapping[str, Tensor]
Loss = Callable[[Tensor | None], Tensor]
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Training:
    """Descent on a random loss over all parameters at once.

    num_steps: steps at most. lr: learning rate of the first stage; `plateau` lowers it, or `schedule`, a
    share of lr by step, sets it instead. rows, batch_size: rows in all and in a batch; None takes all.
    clip: largest norm of the gradient. seed: of the order of the rows.
    window: steps between two looks at the objective; by default at least 200, and at least an epoch.
    callbacks: each called as callback(step, mean objective of the window); one that returns True ends the run.
    optimiser, groups: any of `torch.optim`, and what it is told of each parameter. ema: decay of an average of
    the weights. held_out: ends the run, and keeps the best weights. precision: "bf16" or "fp16" under autocast.
    checkpoint: a file, or a `Checkpoint` that also says what run it is. compile: see `Recorded`.
    before: called with the number of each step before it, to set in place what changes on the way.
    objective: minus the loss at every step so far.
    """

    num_steps: int
    lr: float = 1e-3
    plateau: Plateau | None = None
    rows: int = 0
    batch_size: int | None = None
    clip: float = math.inf
    seed: int = 0
    window: int | None = None
    schedule: Callable[[int], float] | None = None
    checkpoint: Checkpoint | str | Path | None = None
    callbacks: Sequence[Callable[[int, float], Any]] = ()
    optimiser: Callable[..., torch.optim.Optimizer] = FUSED
    groups: Groups = None
    ema: float | None = None
    held_out: HeldOut | None = None
    precision: str | None = None
    progress_bar: bool = False
    compile: bool | str = False
    before: Callable[[int], Any] | None = None
    objective: list[float] = field(default_factory=list)
    stopped: bool = False
    step: int = 0
    average: Average | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.num_steps < 1 or (self.batch_size is not None and self.batch_size < 1):
            raise ValueError("num_steps and batch_size must be at least 1")
        if self.batch_size is not None and self.rows < 1:
            raise ValueError(f"batch_size takes some of the rows: say how many there are; rows is {self.rows}")
        if self.precision not in (None, *HALF):
            raise ValueError(f"no precision {self.precision!r}; there are: bf16, fp16")
        if not isinstance(self.checkpoint, Checkpoint | None):
            run = {"seed": self.seed, "lr": self.lr, "rows": self.rows, "batch_size": self.batch_size}
            self.checkpoint = Checkpoint(Path(self.checkpoint), run)

    def run(self, loss: Loss, parameters: nn.Module | Callable[[], Parameters], buffers: Any = None) -> "Training":
        """Minimise loss(index of rows), starting from, and changing, the tensors of `parameters`.

        parameters: a module; or leaf tensors by name, called after each loss, as a program may make some on
            the way. buffers: likewise, what else changes and belongs into a checkpoint; a module's are known.
        Raises: FloatingPointError when a loss is not finite, naming the step and the first bad parameter.
        """
        self._begin(loss, parameters, buffers)
        recent: list[Tensor] = []
        with Progress(disable=not self.progress_bar or processes.number() > 0) as bar:
            task = bar.add_task("training", total=self.num_steps, completed=self.step)
            while self.step < self.num_steps and not self.ended:
                recent.append(self._descend(loss))
                self.step += 1
                if len(recent) == self.stride or self.step == self.num_steps:
                    self._look(recent, whole=len(recent) == self.stride)
                    told = f"training, objective {math.fsum(self.objective[-len(recent) :]) / len(recent):.4g}"
                    bar.update(task, completed=self.step, description=told)
                    recent = []
                    save(self)
        if self.held_out is not None and self.held_out.best:
            write(self.parameters(), self.held_out.best)
        return self

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Compute with the averaged weights inside; afterwards the last ones are back."""
        if self.ema is None or self.average is None:
            raise ValueError("there is no average of the weights: say ema=0.999, or another decay")
        with swapped(self.parameters(), self.average.values):
            yield

    def curves(self) -> dict[str, Tensor]:
        """Return the objectives, higher is better: at every step, and the held-out one at every look."""
        looks = {} if self.held_out is None else {"held_out": self.held_out.objective}
        return {name: torch.tensor(values) for name, values in {"objective": self.objective, **looks}.items()}

    @property
    def executor(self) -> str:
        """How steps are computed: "eager", "recorded" or "compiled"."""
        return self._recorded.executor if self._recorded is not None else "eager"

    def batch(self, step: int) -> tuple[Tensor | None, float]:
        """Return the rows that this process looks at in a step, and their share of all that are looked at."""
        return processes.share(minibatch(self.rows, self.batch_size, step, self.seed), self.rows)

    @property
    def ended(self) -> bool:
        """Has a rule stopped it, before its last step or at it?"""
        arrived = self.plateau is not None and self.plateau.converged
        return arrived or self.stopped or (self.held_out is not None and self.held_out.stopped)

    @property
    def stride(self) -> int:
        """Steps between two looks at the objective."""
        batches = 1 if self.batch_size is None else math.ceil(self.rows / self.batch_size)
        return self.window or max(200, batches)

    def _begin(self, loss: Loss, parameters: Any, buffers: Any) -> None:
        module = self._module = parameters if isinstance(parameters, nn.Module) else None
        self.parameters = parameters if module is None else lambda: _learned(module)
        self.buffers = buffers or (dict if module is None else lambda: dict(module.named_buffers()))
        recorded = Recorded(self._loss(loss), self.parameters, self.buffers, self.num_steps, self.compile)
        self._recorded = recorded if self.compile else None
        self.average = Average(self.ema) if self.ema is not None else None
        scaler = torch.amp.GradScaler(_device(self.parameters()).type) if self.precision == "fp16" else None
        self.descent = Optimiser(self.optimiser, self.lr, self.groups, self.clip, scaler)
        if module is not None:
            self.know()
        resume(self, loss)
        if processes.count() > 1 and not self.objective:
            torch.manual_seed(torch.initial_seed() + 1_000_003 * processes.number())  # noise of its own for its rows

    def know(self) -> None:
        """Take in parameters that the loss has made."""
        if self.descent.know(self.parameters()):
            processes.agree([*self.parameters().values(), *self.buffers().values()])

    def _descend(self, loss: Loss) -> Tensor:
        """One step; return the objective before it."""
        rate = self.schedule(self.step) if self.schedule else self.plateau.rate if self.plateau else 1.0
        if self.before is not None:
            self.before(self.step)
        rows, share = self.batch(self.step)
        if self._recorded is not None and self.descent.own is not None:  # it knows all parameters
            value, grads = self._recorded(rows)
            for parameter, grad in zip(self.parameters().values(), grads, strict=True):
                parameter.grad = grad if grad is None or share == 1 else grad * share
            total = self._refused(value, share)
            self.descent.descend(rate)
        else:
            value = self._loss(loss)(rows)
            self.know()
            total = self._refused(value, share)
            self.descent.step(value if share == 1 else value * share, rate)
        if self.average is not None:
            self.average.update(self.step, self.parameters())
        return -total

    def _loss(self, loss: Loss) -> Loss:
        def cast(rows: Tensor | None) -> Tensor:
            with self._autocast():
                return loss(rows)

        return loss if self.precision is None else cast

    def _autocast(self) -> Any:
        if self.precision is None:
            return nullcontext()
        return torch.autocast(_device(self.parameters()).type, HALF[self.precision])

    def _refused(self, value: Tensor, share: float) -> Tensor:
        """The loss of the whole batch. Look at once where looking costs nothing; elsewhere the window's end must do."""
        total = (value.detach() * share).clone()
        processes.add_up([total])
        if total.device.type == "cpu" and not math.isfinite(total):
            parameters = self.parameters()
            where = first_not_finite(parameters)
            if where is None and value.requires_grad:
                grads = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
                found = first_not_finite(dict(zip(parameters, grads, strict=True)))
                where = f"the gradient of {found}" if found else None
            raise _not_finite(self.step, float(total), where)
        return total

    def _look(self, recent: list[Tensor], whole: bool) -> None:
        values = torch.stack(recent).tolist()  # on another device, the only wait
        bad = next((i for i, value in enumerate(values) if not math.isfinite(value)), None)
        if bad is not None:
            raise _not_finite(len(self.objective) + bad, -values[bad], first_not_finite(self.parameters()))
        self.objective += values
        if whole and self.plateau is not None:
            self.plateau.update(values)
        if self._recorded is not None:
            self._recorded.refuse_change(self.batch(self.step - 1)[0])
        if self.held_out is not None:
            self._hold_out(self.held_out)
        mean = math.fsum(values) / len(values)
        self.stopped = any([callback(len(self.objective), mean) is True for callback in self.callbacks])

    def _hold_out(self, held_out: HeldOut) -> None:
        training = self._module is not None and self._module.training
        with self.averaged() if self.average is not None else nullcontext():
            if self._module is not None:
                self._module.eval()
            with self._autocast():
                value = torch.tensor(held_out.measure(), dtype=torch.float64)
            if self._module is not None:
                self._module.train(training)
            processes.agree([value])
            held_out.take(float(value), self.parameters())


def first_not_finite(tensors: Mapping[str, Tensor | None]) -> str | None:
    """Return the name of the first tensor that holds a NaN or an infinity."""
    return next((n for n, v in tensors.items() if v is not None and not v.isfinite().all()), None)


def _not_finite(step: int, loss: float, where: str | None) -> FloatingPointError:
    culprit = f"the first parameter that is not finite is {where}" if where else "every parameter is finite"
    return FloatingPointError(f"step {step + 1}: the loss is {loss}; {culprit}")


def _learned(module: nn.Module) -> Parameters:
    return {name: value for name, value in module.named_parameters() if value.requires_grad}


def _device(parameters: Parameters) -> torch.device:
    return next(iter(parameters.values())).device if parameters else torch.get_default_device()
