"""The training loop: minibatches, one optimiser, a stopping rule, checkpoints with exact resume."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from inference.training.checkpoint import Checkpoint
from inference.training.plateau import Plateau

Parameters = Mapping[str, Tensor]


@dataclass
class Training:
    """Adam on a random loss, -ELBO, over all parameters at once.

    num_steps: steps at most. lr: learning rate of the first stage; `plateau` lowers it, or `schedule`, a
    share of lr by step, sets it instead. rows, batch_size: rows in all and in a batch; None takes all.
    clip: largest norm of the gradient. seed: of the order of the rows.
    window: steps between two looks at the objective; by default at least 200, and at least an epoch.
    callbacks: each called as callback(step, mean ELBO of the window); one that returns True ends the run.
    """

    num_steps: int
    lr: float
    plateau: Plateau
    rows: int = 0
    batch_size: int | None = None
    clip: float = math.inf
    seed: int = 0
    window: int | None = None
    schedule: Callable[[int], float] | None = None
    checkpoint: Checkpoint | None = None
    callbacks: Sequence[Callable[[int, float], Any]] = ()
    elbo: list[float] = field(default_factory=list)
    stopped: bool = False

    def run(self, loss: Callable[[Tensor | None], Tensor], parameters: Callable[[], Parameters]) -> "Training":
        """Minimise loss(index of rows), starting from, and changing, the tensors of `parameters()`.

        parameters: leaf tensors by name; called after each loss, as a program may make some on the way.
        Raises: FloatingPointError when a loss is not finite, naming the step and the first bad parameter.
        """
        optimiser = _Optimiser(self.lr)
        self._resume(loss, parameters, optimiser)
        window = self.window or max(200, self._batches)
        recent: list[Tensor] = []
        while len(self.elbo) + len(recent) < self.num_steps and not self.plateau.converged and not self.stopped:
            step = len(self.elbo) + len(recent)
            value = loss(minibatch(self.rows, self.batch_size, step, self.seed))
            optimiser.know(parameters())
            self._refuse_infinite(step, value, parameters())
            optimiser.step(value, self.clip, self.lr * self._rate(step))
            recent.append(-value.detach())
            if len(recent) == window or step + 1 == self.num_steps:
                self._look(recent, parameters(), whole=len(recent) == window)
                recent = []
                self._save(optimiser, parameters())
        return self

    @property
    def _batches(self) -> int:
        return 1 if self.batch_size is None else math.ceil(self.rows / self.batch_size)

    def _rate(self, step: int) -> float:
        return self.plateau.rate if self.schedule is None else self.schedule(step)

    def _look(self, recent: list[Tensor], parameters: Parameters, whole: bool) -> None:
        values = torch.stack(recent).tolist()  # on another device, the only wait
        bad = next((i for i, value in enumerate(values) if not math.isfinite(value)), None)
        if bad is not None:
            raise _not_finite(len(self.elbo) + bad, -values[bad], first_not_finite(parameters))
        self.elbo += values
        if whole:
            self.plateau.update(values)
        mean = math.fsum(values) / len(values)
        self.stopped = any([callback(len(self.elbo), mean) is True for callback in self.callbacks])

    def _refuse_infinite(self, step: int, loss: Tensor, parameters: Parameters) -> None:
        """Look at once where looking costs nothing; elsewhere the window's end must do."""
        if loss.device.type != "cpu" or math.isfinite(loss.detach()):
            return
        where = first_not_finite(parameters)
        if where is None and loss.requires_grad:
            grads = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            found = first_not_finite(dict(zip(parameters, grads, strict=True)))
            where = f"the gradient of {found}" if found else None
        raise _not_finite(step, float(loss.detach()), where)

    def _save(self, optimiser: "_Optimiser", parameters: Parameters) -> None:
        if self.checkpoint is None or not (self.plateau.converged or self.stopped or self.checkpoint.due()):
            return
        tensors = {f"parameter {name}": value for name, value in parameters.items()} | optimiser.tensors()
        tensors |= {"elbo": torch.tensor(self.elbo, dtype=torch.float64), "random": torch.get_rng_state()}
        self.checkpoint.save(tensors, {"plateau": self.plateau.state(), "stopped": self.stopped})

    def _resume(self, loss: Any, parameters: Callable[[], Parameters], optimiser: "_Optimiser") -> None:
        found = self.checkpoint.load() if self.checkpoint is not None else None
        if found is None:
            return
        tensors, facts = found
        loss(minibatch(self.rows, self.batch_size, 0, self.seed))  # programs make their parameters at first use
        optimiser.know(parameters())
        with torch.no_grad():
            for name, value in parameters().items():
                value.copy_(tensors[f"parameter {name}"])
        optimiser.restore(tensors)
        self.elbo, self.stopped = tensors["elbo"].tolist(), facts["stopped"]
        self.plateau.restore(facts["plateau"])
        torch.set_rng_state(tensors["random"])


class _Optimiser:
    """One Adam over all parameters, which it knows by name."""

    def __init__(self, lr: float) -> None:
        self.adam: torch.optim.Adam | None = None
        self.lr, self.names = lr, {}

    def know(self, parameters: Parameters) -> None:
        """Take in parameters that are new."""
        new = {name: value for name, value in parameters.items() if name not in self.names}
        if not new:
            return
        self.names |= new
        if self.adam is None:
            self.adam = torch.optim.Adam(list(new.values()), lr=self.lr)
        else:
            self.adam.add_param_group({"params": list(new.values())})

    def step(self, loss: Tensor, clip: float, lr: float) -> None:
        """Go down the gradient."""
        if self.adam is None or not loss.requires_grad:
            return
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        if clip < math.inf:
            torch.nn.utils.clip_grad_norm_(list(self.names.values()), clip)
        for group in self.adam.param_groups:
            group["lr"] = lr
        self.adam.step()

    def tensors(self) -> dict[str, Tensor]:
        """Return Adam's averages and counts by parameter."""
        state = self.adam.state if self.adam is not None else {}
        return {f"{kind} {name}": v for name, p in self.names.items() for kind, v in state.get(p, {}).items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up averages and counts that were saved."""
        assert self.adam is not None
        for name, p in self.names.items():
            kinds = ("step", "exp_avg", "exp_avg_sq")
            self.adam.state[p] = {k: tensors[f"{k} {name}"].clone() for k in kinds if f"{k} {name}" in tensors}


def minibatch(rows: int, batch_size: int | None, step: int, seed: int) -> Tensor | None:
    """Return the rows of this step, (here,): each epoch a new order of all rows, in batches of equal size.

    A function of its arguments alone, so that a resumed run goes on with the very same rows.
    """
    if batch_size is None:
        return None
    batches = math.ceil(rows / batch_size)
    epoch, place = divmod(step, batches)
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    order = torch.randperm(rows, generator=generator, device="cpu")
    return order.tensor_split(batches)[place].to(torch.get_default_device())


def first_not_finite(tensors: Mapping[str, Tensor | None]) -> str | None:
    """Return the name of the first tensor that holds a NaN or an infinity."""
    return next((n for n, v in tensors.items() if v is not None and not v.isfinite().all()), None)


def _not_finite(step: int, loss: float, where: str | None) -> FloatingPointError:
    culprit = f"the first parameter that is not finite is {where}" if where else "every parameter is finite"
    return FloatingPointError(f"step {step + 1}: the loss is {loss}; {culprit}")
