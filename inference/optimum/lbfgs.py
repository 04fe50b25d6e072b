"""Limited-memory BFGS over many paths in lockstep: one batched evaluation a tick, however many the paths.

Every path has its own curvature, bracket and end; one that has ended stays where it is. So sixteen paths
cost little more than one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inference.optimum.curvature import Curvature

ValueAndGrad = Callable[[Tensor], tuple[Tensor, Tensor]]

SUFFICIENT, STEEP = 1e-4, 0.9  # the two constants of Wolfe's conditions
TRIES = 30  # evaluations in one line search
IDLE = 5  # steps on end that gain nothing beyond rounding

STATUS = ("out of steps", "converged", "stalled", "no finite start")
RUNNING, CONVERGED, STALLED, NO_START = range(4)


@dataclass(frozen=True)
class Trajectory:
    """The iterates of every path, the start first, each path padded with its last.

    x, grad (P, T, D); log_prob (P, T); length (P,): how many are its own.
    """

    x: Tensor
    grad: Tensor
    log_prob: Tensor
    length: Tensor


@dataclass(frozen=True)
class Ascent:
    """Where every path ended.

    x, grad (P, D); log_prob (P,); decrement (P,): 1/2 g' H g, the gain in log density that the curvature
    found still promises; status (P,): index into `STATUS`; steps (P,); values (P, T): log density of the
    iterates, padded with the last; evaluations: batched ones.
    """

    x: Tensor
    log_prob: Tensor
    grad: Tensor
    decrement: Tensor
    status: Tensor
    steps: Tensor
    values: Tensor
    evaluations: int
    trajectory: Trajectory | None

    @property
    def converged(self) -> Tensor:
        """Which paths ended where nothing is to be gained, (P,)."""
        return self.status == CONVERGED


def maximise(
    value_and_grad: ValueAndGrad,
    start: Tensor,
    *,
    num_steps: int = 1000,
    tol: float = 1e-8,
    memory: int = 10,
    keep: bool = False,
) -> Ascent:
    """Climb a log density from every row of start, (P, D), until 1/2 g' H g <= tol, in nats.

    H is the inverse Hessian found so far, so the criterion does not depend on any coordinate's unit. A
    value that is not finite counts as a step too far. `keep` asks for the trajectory.

    Source: Nocedal and Wright (2006), algorithm 7.5; Lewis and Overton (2013) for the bracket; Hager and
    Zhang (2005), equation 4.1, for steps whose gain is lost in rounding.
    """
    with torch.no_grad():
        climb = _Climb(value_and_grad, start, num_steps, tol, memory, keep)
        while bool(climb.active.any()):
            climb.tick()
        return climb.result()


class _Bracket:
    """A line search of every path: between a step too short and a step too far."""

    def __init__(self, like: Tensor) -> None:
        self.step, self.low, self.high = (torch.zeros_like(like) for _ in range(3))
        self.low_value, self.low_slope, self.high_value = (torch.zeros_like(like) for _ in range(3))
        self.tries = torch.zeros_like(like)

    def begin(self, which: Tensor, step: Tensor, value: Tensor, slope: Tensor) -> None:
        """Search anew in these paths, from a first step."""
        self.step = torch.where(which, step, self.step)
        self.low_value = torch.where(which, value, self.low_value)
        self.low_slope = torch.where(which, slope, self.low_slope)
        self.low, self.tries = self.low.masked_fill(which, 0.0), self.tries.masked_fill(which, 0.0)
        self.high, self.high_value = (v.masked_fill(which, math.inf) for v in (self.high, self.high_value))

    def narrow(self, short: Tensor, far: Tensor, value: Tensor, slope: Tensor) -> None:
        """Learn which steps were too short, and which too far, and propose the next."""
        secant = self.step - slope * (self.step - self.low) / (slope - self.low_slope)
        self.high = torch.where(far, self.step, self.high)
        self.high_value = torch.where(far, value, self.high_value)
        self.low = torch.where(short, self.step, self.low)
        self.low_value = torch.where(short, value, self.low_value)
        self.low_slope = torch.where(short, slope, self.low_slope)
        width = self.high - self.low
        bend = self.high_value - self.low_value - self.low_slope * width
        share = (-0.5 * self.low_slope * width / bend).nan_to_num(0.5).clamp(0.1, 0.9)
        longer = torch.where(secant > self.step, secant, math.inf).clamp(2 * self.step, 10 * self.step)
        step = torch.where(self.high.isinf(), longer, self.low + share * width)
        self.step = torch.where(short | far, step, self.step)
        self.tries = self.tries + (short | far)

    @property
    def spent(self) -> Tensor:
        """Which searches have come to nothing, (P,)."""
        narrow = self.high.isfinite() & (self.high - self.low <= 1e-15 * self.high)
        return narrow | (self.tries >= TRIES)


class _Climb:
    """All paths between two evaluations; a descent of the negative log density."""

    def __init__(
        self, value_and_grad: ValueAndGrad, start: Tensor, num_steps: int, tol: float, memory: int, keep: bool
    ) -> None:
        self.evaluate, self.num_steps, self.tol, self.keep = value_and_grad, num_steps, tol, keep
        self.x, self.evaluations = start.detach().clone(), 0
        self.value, self.grad = self._descent(self.x)
        self.active = self.value.isfinite() & self.grad.isfinite().all(-1)
        self.grad = torch.where(self.active[:, None], self.grad, 0.0)
        self.status = torch.where(self.active, RUNNING, NO_START)
        self.steps, self.idle = torch.zeros_like(self.status), torch.zeros_like(self.status)
        self.rounding = 10 * torch.finfo(self.x.dtype).eps
        self.curvature, self.line = Curvature(self.x, memory), _Bracket(self.value)
        self.direction, self.slope = torch.zeros_like(self.x), torch.zeros_like(self.value)
        self.iterates: list[tuple[Tensor, ...]] = []
        self._record(torch.ones_like(self.active))
        self._turn(self.active)
        self._retire()

    def tick(self) -> None:
        """Evaluate a trial step of every path, and take it, or narrow its bracket."""
        trial = torch.where(self.active[:, None], self.x + self.line.step[:, None] * self.direction, self.x)
        value, grad = self._descent(trial)
        slope = (grad * self.direction).sum(-1)
        low = self.active & self._low_enough(value, slope)
        accepted = low & (slope >= STEEP * self.slope)
        rejected = self.active & ~accepted
        searching = bool(rejected.any())
        if searching:
            self.line.narrow(low & rejected, rejected & ~low, value, slope)
        if bool(accepted.any()):
            self._move(accepted, trial, value, grad)
        if searching and bool((spent := self.active & self.line.spent).any()):
            self._begin_again(spent)
        self._retire()

    def result(self) -> Ascent:
        values, trajectory = self._trajectory()
        decrement = torch.where(self.status == NO_START, math.nan, -0.5 * self.slope)
        ends = self.x, -self.value, -self.grad, decrement, self.status, self.steps
        return Ascent(*ends, values, self.evaluations, trajectory)

    def _descent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.evaluations += 1
        value, grad = self.evaluate(x)
        return -value, -grad

    def _low_enough(self, value: Tensor, slope: Tensor) -> Tensor:
        """Armijo's condition or, within rounding, the same condition on the slope."""
        armijo = value <= self.value + SUFFICIENT * self.line.step * self.slope
        near = value <= self.value + self.rounding * self.value.abs()
        approximate = near & (slope <= (2 * SUFFICIENT - 1) * self.slope)
        return (armijo | approximate) & value.isfinite() & slope.isfinite()

    def _move(self, accepted: Tensor, x: Tensor, value: Tensor, grad: Tensor) -> None:
        self.curvature.remember(accepted, x - self.x, grad - self.grad)
        gained = self.value - value > self.rounding * self.value.abs()
        self.idle = torch.where(accepted, (self.idle + 1) * ~gained, self.idle)
        self.x = torch.where(accepted[:, None], x, self.x)
        self.grad = torch.where(accepted[:, None], grad, self.grad)
        self.value = torch.where(accepted, value, self.value)
        self.steps = self.steps + accepted
        self._record(accepted)
        self._turn(accepted)

    def _turn(self, which: Tensor) -> None:
        """A new direction for these paths."""
        newton = self.curvature.times(self.grad)
        slope = -(newton * self.grad).sum(-1)
        lost = which & ~((slope < 0) & slope.isfinite())
        if bool(lost.any()):  # rounding has spoilt the curvature, or the gradient is zero
            self.curvature.forget(lost)
            newton = torch.where(lost[:, None], self.grad, newton)
            slope = -(newton * self.grad).sum(-1)
        cautious = newton.norm(dim=-1).clamp(min=1.0).reciprocal()
        step = torch.where(self.curvature.count == 0, cautious, 1.0)
        self.direction = torch.where(which[:, None], -newton, self.direction)
        self.slope = torch.where(which, slope, self.slope)
        self.line.begin(which, step, self.value, self.slope)

    def _begin_again(self, spent: Tensor) -> None:
        """A search that found nothing begins again along the gradient; one along the gradient ends its path."""
        hopeless = spent & (self.curvature.count == 0)
        self.status = self.status.masked_fill(hopeless, STALLED)
        self.curvature.forget(spent)
        self._turn(spent)

    def _retire(self) -> None:
        """End the paths that are there, that no longer move, or that have had their steps."""
        running = self.status == RUNNING
        self.status = self.status.masked_fill(running & (self.idle >= IDLE), STALLED)
        self.status = self.status.masked_fill(running & (-0.5 * self.slope <= self.tol), CONVERGED)
        self.active = (self.status == RUNNING) & (self.steps < self.num_steps)

    def _record(self, accepted: Tensor) -> None:
        whole = (self.x, -self.grad) if self.keep else ()
        self.iterates.append((accepted, -self.value, *whole))

    def _trajectory(self) -> tuple[Tensor, Trajectory | None]:
        """Each path's own iterates side by side, (P, T)."""
        accepted, values, *whole = (torch.stack(each, 1) for each in zip(*self.iterates, strict=True))
        length = accepted.sum(1)
        order = torch.argsort((~accepted).long(), dim=1, stable=True)[:, : int(length.max())]
        last = order.gather(1, (length - 1)[:, None])
        own = torch.arange(order.shape[1], device=order.device) < length[:, None]
        order, rows = torch.where(own, order, last), torch.arange(len(order), device=order.device)[:, None]
        values = values[rows, order]
        if not whole:
            return values, None
        return values, Trajectory(whole[0][rows, order], whole[1][rows, order], values, length)
