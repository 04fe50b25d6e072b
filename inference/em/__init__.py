"""Expectation maximisation, for models that know both steps: restarts, and SQUAREM between steps."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from inference.base import Fit, Unsupported, fresh, joint
from inference.em.incremental import Stream, climb_by_batches, refuse_without_sums
from inference.em.problem import Point, Problem
from ppmodels.base import ApproximateEM, Data, HasEM, HasRestart, Theta

__all__ = ["Stream", "fit"]

log = logging.getLogger("inference")

PATIENCE = 20  # steps below the highest point, after which an approximate climb ends there
ROUNDING = 1e-13  # relative, of parameters in float64; a smaller change of the objective is none


def fit(
    model: Any,
    *args: Any,
    seed: int = 0,
    num_steps: int = 2000,
    tol: float = 1e-9,
    num_restarts: int = 10,
    accelerate: bool = True,
    prior: bool = False,
    batch_size: int | None = None,
    guard: bool = True,
    progress_bar: bool = False,
    **kwargs: Any,
) -> Fit:
    """Climb the likelihood from several starts, and keep the highest top; one draw.

    num_steps: steps of each restart at most.
    tol: stop where the objective's estimated distance to its limit is below tol (1 + |objective|). The
        estimate is a geometric series: the last gain, and the rate at which the steps shrink (Aitken).
    num_restarts: starts. The highest objective wins, and of those that agree with it to tol the first; a
        collapsed one wins only when all have collapsed.
    accelerate: extrapolate each pair of steps in unconstrained coordinates (SQUAREM), and take the plain
        step where that would lower the objective: the objective never falls. A model whose E step is approximate
        (`ApproximateEM`), so that this does not hold, is stepped plainly until its objective stands still, or
        has been below its highest for long; the highest is then the answer, and not called converged.
    prior: maximise log p(x, theta) instead of log p(x | theta). Off, because EM is known for the maximum
        of the likelihood, and others' figures are that; on, no component can collapse.
    batch_size: rows whose sums are renewed before each M step (incremental EM): parameters move many times in one
        pass over the data, with the same tops. num_steps counts passes, and the trace has their bounds. For data
        that come in pieces see `Stream`.
    guard: a top that its own sums doubt (`doubt`), such as one on too few rows, wins only when all are doubted.
    Returns: a Fit whose trace has, at each step of the winner, `log_likelihood`, `bound` (at this theta,
        with the row latents' posterior at the theta before), and with prior `log_density` and `log_prior`.
    Raises: Unsupported when the model has no closed-form steps, or with batch_size, no sums over rows.
    Source: Dempster, Laird and Rubin (1977); Varadhan and Roland (2008), Scand. J. Statistics 35, scheme S3.
    """
    began = time.perf_counter()
    if not isinstance(model, HasEM):
        name = getattr(model, "__name__", type(model).__name__)
        raise Unsupported(f"{name} has no start, e_step, m_step and bound in closed form; em needs them")
    if batch_size is not None:
        refuse_without_sums(model)
    for name, value in (("num_restarts", num_restarts), ("num_steps", num_steps), ("batch_size", batch_size or 1)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1; it is {value}")
    with fresh(model, args, kwargs, seed=seed) as own, Progress(disable=not progress_bar) as bar:
        program = joint(own, tuple(each.plain(own) if isinstance(each, Data) else each for each in args), kwargs)
        problem = Problem(own, args[0], program, prior)
        kinds = own.start, own.restart if isinstance(own, HasRestart) else own.start
        starts = [kinds[i % 2](args[0]) for i in range(num_restarts)]  # first, as a climb may draw numbers too
        climbs = own.climbs if isinstance(own, ApproximateEM) else True
        climb = Climb(problem, num_steps, tol, accelerate, climbs, batch_size)
        paths = [climb.climb(start) for start in bar.track(starts, description="em")]
        best = _best(paths, tol, guard)
        draws = {name: value[None, None] for name, value in best.points[-1].theta.items()}
        info = {**best.result(), "seed": seed, "seconds": time.perf_counter() - began}
        info |= {"tol": tol, "accelerate": accelerate, "prior": prior, "batch_size": batch_size}
        info["restarts"] = [path.result() for path in paths]
        if approximate := own.approximate if isinstance(own, ApproximateEM) else "":
            info |= {"approximate": approximate, "message": f"{best.message}; the E step is approximate: {approximate}"}
            log.warning("em: the E step is approximate (%s); log_likelihood is what it says of it", approximate)
        return Fit(own, args, kwargs, "em", draws, _trace(problem, best), info=info)


@dataclass
class Path:
    """The points of one restart, and how it ended."""

    points: list[Point] = field(default_factory=list)
    evaluations: int = 0
    converged: bool = False
    collapsed: bool = False
    message: str = ""
    bounds: list[float] = field(default_factory=list)  # of passes over batches

    @property
    def doubt(self) -> str:
        """Why this top should not be trusted, as its own sums say."""
        return getattr(self.points[-1].q, "doubt", str)()

    def result(self) -> dict[str, Any]:
        """Return the run in numbers and words."""
        numbers = {"log_likelihood": self.points[-1].log_likelihood, "num_steps": len(self.points) - 1}
        return numbers | {
            "evaluations": self.evaluations,
            "converged": self.converged,
            "message": "; ".join(filter(None, (self.message, self.doubt))),
        }

    def past_its_top(self) -> bool:
        """Has the objective, which no law lets climb, only been lower for long?"""
        return len(self.points) - 1 - self._top() >= PATIENCE

    def cut(self) -> "Path":
        """End at the highest point, and say that the steps led away from it."""
        top, last = self._top(), self.points[-1]
        fallen = f"fell by {self.points[top].objective - last.objective:.3g} in {len(self.points) - 1 - top} steps"
        del self.points[top + 1 :]
        return self.end(f"not converged: the approximate objective {fallen}; its highest point, step {top}, is kept")

    def _top(self) -> int:
        return max(range(len(self.points)), key=lambda i: self.points[i].objective)

    def end(self, message: str, *, converged: bool = False, collapsed: bool = False) -> "Path":
        self.message, self.converged, self.collapsed = message, converged, collapsed
        return self


@dataclass(frozen=True)
class Climb:
    """Pairs of EM steps from a start to convergence."""

    problem: Problem
    num_steps: int
    tol: float
    accelerate: bool
    climbs: bool = True  # is a fall of the objective an error?
    batch_size: int | None = None

    def climb(self, theta: Theta) -> Path:
        """Return the path from a start, two EM steps at a time, the second extrapolated if that helps."""
        if self.batch_size is not None:
            return self._by_batches(theta)
        path, longest, gain = Path(), 4.0, float("inf")
        point = self._visit(path, theta)
        if point.objective == -float("inf"):
            return path.end("the log likelihood is not finite where it starts", collapsed=True)
        while len(path.points) <= self.num_steps:
            try:
                first = self._visit(path, self.problem.step(point))
                theta = self.problem.step(first)
            except ArithmeticError as error:
                return path.end(str(error), collapsed=True)
            flat = [self.problem.flatten(t) for t in (point.theta, first.theta, theta)]
            gain, size = first.objective - point.objective, 1 + abs(first.objective)
            rounding = _rounding(theta) * size
            if not self.climbs:  # nor is there anything to extrapolate by
                if abs(gain) <= self.tol * size:
                    return path.end("converged", converged=True)
                if path.past_its_top():
                    return path.cut()
                point = self._visit(path, theta)
                continue
            if not gain >= -100 * rounding:
                return path.end(f"the objective fell by {-gain:.3g}: the E step or the M step is not exact")
            if max(gain, _left(gain, flat)) <= self.tol * size or gain <= rounding:
                return path.end("converged", converged=True)
            far, longest = self._extrapolate(path, first, flat, longest) if self.accelerate else (None, 0.0)
            point = far or self._visit(path, theta)
        return path.end(f"not converged in {self.num_steps} steps; the last pair gained {gain:.3g}")

    def _by_batches(self, theta: Theta) -> Path:
        """The start and the top of incremental EM; what is between has bounds alone."""
        path = Path([self.problem.at(theta)])
        try:
            theta, path.bounds, converged = climb_by_batches(
                self.problem, theta, self.batch_size or 0, self.num_steps, self.tol
            )
        except ArithmeticError as error:
            return path.end(str(error), collapsed=True)
        self._visit(path, theta)
        path.evaluations += len(path.bounds)
        message = "converged" if converged else f"not converged in {self.num_steps} passes"
        return path.end(message, converged=converged)

    def _visit(self, path: Path, theta: Theta) -> Point:
        """The E step at theta, which becomes a point of the path."""
        path.points.append(self.problem.at(theta))
        path.evaluations += 1
        return path.points[-1]

    def _extrapolate(
        self, path: Path, first: Point, flat: Sequence[Tensor], longest: float
    ) -> tuple[Point | None, float]:
        """A point further than two EM steps, if it is above the first; and the longest reach to try next."""
        step, bend = flat[1] - flat[0], flat[2] - 2 * flat[1] + flat[0]
        reach = min(float(step.norm() / bend.norm()), longest)
        if not reach > 1:
            return None, longest
        path.evaluations += 1
        try:
            point = self.problem.at(self.problem.unflatten(flat[0] + 2 * reach * step + reach**2 * bend, first.theta))
        except ArithmeticError:  # too far for the model's own numbers
            return None, max(2.0, longest / 4)
        if not point.objective >= first.objective:
            return None, max(2.0, longest / 4)
        path.points.append(point)
        return point, 4 * longest if reach == longest else longest


def _best(paths: Sequence[Path], tol: float, guard: bool) -> Path:
    """The first path whose objective is the highest to tol; a doubted one only if all are, then a collapsed one."""
    sound = [path for path in paths if not path.collapsed] or paths
    sound = [path for path in sound if guard and not path.doubt] or sound
    highest = max(path.points[-1].objective for path in sound)
    enough = highest - tol * (1 + abs(highest)) if highest > -float("inf") else highest
    return next(path for path in sound if path.points[-1].objective >= enough)


def _rounding(theta: Theta) -> float:
    """The relative change of the objective that rounding of the parameters makes: near a top it is of second order."""
    widest = max(torch.finfo(value.dtype).eps for value in theta.values() if value.is_floating_point())
    return max(ROUNDING, widest / 10 if widest > 1e-12 else 0.0)


def _left(gain: float, flat: Sequence[Tensor]) -> float:
    """What is still to gain if steps go on shrinking as these two; gains shrink as their squares."""
    rate = float((flat[2] - flat[1]).norm() / (flat[1] - flat[0]).norm()) ** 2
    return gain * rate / (1 - rate) if rate < 1 else float("inf")


def _trace(problem: Problem, path: Path) -> dict[str, Tensor]:
    """The objectives along a path, (step,) each."""
    points = path.points
    before = [points[0], *points]
    columns = {
        "log_likelihood": [point.log_likelihood for point in points],
        "bound": path.bounds or [problem.bound(last, point.theta) for last, point in zip(before, points, strict=False)],
    }
    if problem.prior:
        columns = {"log_density": [point.objective for point in points], **columns}
        columns["log_prior"] = [point.log_prior for point in points]
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in columns.items()}
