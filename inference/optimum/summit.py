"""The top of a log density: the best of several climbs, ended by Newton's method on the exact Hessian."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from inference.density import Density
from inference.density.executor import loop
from inference.optimum import kinks
from inference.optimum.lbfgs import NO_START, RUNNING, STATUS, Ascent, ValueAndGrad, maximise

NEWTON_DIM = 1000  # coordinates above which the Hessian costs more than it tells
NEWTON_STEPS = 20
Map = Callable[[Tensor], Tensor]
ENOUGH = 1e-26  # nats: the mode is then known to 1e-13 posterior sds


@dataclass(frozen=True)
class Summit:
    """The highest point found.

    x, grad (D,); hessian (D, D) of the log density there, None where D is too large for it; log_prob;
    decrement: gain that Newton's step, or L-BFGS's, still promises; stride (D,): that step. At a kink, where no
    gradient vanishes, grad is a mixture of those around it, and decrement what that mixture leaves open.
    best: which climb it is from. ascent: all climbs.
    """

    x: Tensor
    grad: Tensor
    hessian: Tensor | None
    log_prob: float
    decrement: float
    stride: Tensor
    best: int
    ascent: Ascent


@dataclass(frozen=True)
class Flat:
    """A direction along which the log density does not fall: eigenvalue of minus the Hessian, and main site."""

    site: str
    eigenvalue: float


def find(
    density: Density,
    generator: torch.Generator,
    *,
    num_restarts: int,
    num_steps: int,
    tol: float,
    newton: int = NEWTON_DIM,
    start: Tensor | None = None,
    stretch: Map | None = None,
    evaluate: ValueAndGrad | None = None,
) -> Summit:
    """Climb from num_restarts random starts, or from the rows of start, (P, D), and polish the highest end.

    stretch: a linear map A of rows, with A A' about the inverse curvature: few steps then lead from start to the top.
    evaluate: the density's value and gradient at rows, where the caller has a faster way than the density's own.

    Raises: ValueError when num_restarts or num_steps is below one.
    """
    if num_restarts < 1 or num_steps < 1:
        raise ValueError(f"num_restarts and num_steps must be at least 1; they are {num_restarts}, {num_steps}")
    paths = num_restarts if start is None else len(start)
    # The few hundred steps of a single climb cost less than a trace of the program would.
    evaluate = evaluate or (density.batched(paths, calls=100) if paths > 1 else loop(density.value_and_grad))
    start = density.start(paths, generator, evaluate=evaluate) if start is None else start
    if stretch is None:
        ascent = maximise(evaluate, start, num_steps=num_steps, tol=tol)
    else:
        ascent = _stretched(evaluate, start, stretch, num_steps, tol)
    ends = torch.where(ascent.status == NO_START, -torch.inf, ascent.log_prob)
    best = int(ends.argmax())
    x, grad = ascent.x[best], ascent.grad[best]
    top = float(ascent.log_prob[best])
    if density.dim > newton:
        stride = torch.zeros_like(x)
        return Summit(x, grad, None, top, float(ascent.decrement[best]), stride, best, ascent)
    return _polish(density, x, best, ascent, tol)


def flat(density: Density, hessian: Tensor) -> Flat | None:
    """Return the direction in which minus the Hessian, (D, D), is least positive, if it is not positive at all.

    Judged with every coordinate scaled by its own curvature, so that units do not matter.
    """
    negative = -hessian
    if not bool(negative.isfinite().all()):
        coordinate = int((~negative.isfinite()).sum(1).argmax())
        return Flat(_site_of(density, coordinate), float("nan"))
    curvature = negative.diagonal()
    scale = curvature.clamp(min=torch.finfo(curvature.dtype).tiny).rsqrt()
    scale = torch.where(curvature > 0, scale, 1.0)
    values, vectors = torch.linalg.eigh(scale[:, None] * negative * scale)
    if float(values[0]) > 100 * density.dim * torch.finfo(values.dtype).eps:
        return None
    vector = scale * vectors[:, 0]
    vector = vector / vector.norm()
    eigenvalue = float(vector @ negative @ vector)
    return Flat(_site_of(density, int(vector.abs().argmax())), eigenvalue)


def report(density: Density, summit: Summit, tol: float) -> tuple[bool, str]:
    """Return whether this is a mode, and a line that says why not, or how the climbs agreed."""
    ended = STATUS[int(summit.ascent.status[summit.best])]
    if not summit.decrement <= max(tol, _rounding(summit.x, summit.log_prob)):
        left = f"the log density may still gain {summit.decrement:.3g}"
        if int(summit.ascent.status[summit.best]) == RUNNING:
            return False, f"{ended}: {left}; raise num_steps"
        return False, f"no step gains more, though {left}: it has kinks or is not precise; raise tol to accept this"
    if summit.hessian is not None:
        level = flat(density, summit.hessian)
        if level is not None:
            where = f"site {level.site!r} (curvature {level.eigenvalue:.3g})"
            return False, f"the log density has no strict maximum: it does not fall along {where}"
        relative = summit.stride.abs() / (1 + summit.x.abs())
        if float(relative.max()) > 1e-2:
            where = _site_of(density, int(relative.argmax()))
            return False, f"the log density still rises toward the edge of site {where!r}'s support"
    same, total = int(agreeing(summit).sum()), len(summit.ascent.log_prob)
    others = num_modes(summit.ascent) - min(same, 1)
    text = f"{same} of {total} restarts reached this mode"
    return True, f"{text}; others found {others} more" if others > 0 else text


def agreeing(summit: Summit) -> Tensor:
    """Which climbs ended at this mode, (P,)."""
    return _near(summit.ascent.x, summit.x) & summit.ascent.converged


def num_modes(ascent: Ascent) -> int:
    """Count the places at which climbs have converged that are apart by more than rounding."""
    places: list[Tensor] = []
    for x in ascent.x[ascent.converged]:
        if not any(bool(_near(x, place)) for place in places):
            places.append(x)
    return len(places)


def restarts(ascent: Ascent) -> list[dict[str, Any]]:
    """What became of every climb, in numbers and words."""
    return [
        {"log_density": float(value), "converged": bool(done), "num_steps": int(steps), "message": STATUS[int(s)]}
        for value, done, steps, s in zip(ascent.log_prob, ascent.converged, ascent.steps, ascent.status, strict=True)
    ]


def _polish(density: Density, x: Tensor, best: int, ascent: Ascent, tol: float) -> Summit:
    """Newton's steps from the end of a climb, while the gain that they promise falls; at a kink, steps along it."""
    value, grad = density.value_and_grad(x)
    hessian, stride, decrement = _newton(density, x, grad)
    steps = 0 if int(ascent.status[best]) == RUNNING else NEWTON_STEPS
    for _ in range(steps):
        if decrement is None or not decrement > ENOUGH:
            break
        trial = x + stride
        new_value, new_grad = density.value_and_grad(trial)
        if not bool(new_value >= value - 1e-12 * value.abs()) or not bool(new_grad.isfinite().all()):
            break
        new = _newton(density, trial, new_grad)
        if new[2] is None or not new[2] < decrement:
            break
        x, value, grad, (hessian, stride, decrement) = trial, new_value, new_grad, new
    if steps and decrement is not None and decrement > max(tol, _rounding(x, float(value))):
        factor = torch.linalg.cholesky(-hessian)
        found = kinks.climb(density.value_and_grad, x, factor, tol)
        if found is not None and found.gain < decrement:
            stride = torch.cholesky_solve(found.slope[:, None], factor)[:, 0]
            return Summit(found.x, found.slope, hessian, found.value, found.gain, stride, best, ascent)
    promised = float(ascent.decrement[best]) if decrement is None else decrement
    return Summit(x, grad, hessian, float(value), promised, stride, best, ascent)


def _stretched(evaluate: ValueAndGrad, start: Tensor, stretch: Map, num_steps: int, tol: float) -> Ascent:
    """Climb in coordinates z, x = start + A z, in which the top is about round."""

    def in_z(z: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            x = start + stretch(z)
        value, grad = evaluate(x.detach())
        return value, torch.autograd.grad(x, z, grad)[0]

    found = maximise(in_z, torch.zeros_like(start), num_steps=num_steps, tol=tol)
    x = start + stretch(found.x)
    return replace(found, x=x, grad=evaluate(x)[1])


def _rounding(x: Tensor, value: float) -> float:
    """What a log density of this size cannot tell from nothing."""
    return torch.finfo(x.dtype).eps * abs(value)


def _newton(density: Density, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, float | None]:
    """The Hessian, Newton's step and the gain it promises; none where the Hessian is not negative definite."""
    hessian = density.hessian(x).detach()
    factor, failed = torch.linalg.cholesky_ex(-hessian)
    if int(failed) or not bool(factor.isfinite().all()):
        return hessian, torch.zeros_like(x), None
    stride = torch.cholesky_solve(grad[:, None], factor)[:, 0]
    return hessian, stride, 0.5 * float(grad @ stride)


def _near(x: Tensor, place: Tensor) -> Tensor:
    return ((x - place).abs() <= 1e-3 * (1 + place.abs())).all(-1)


def _site_of(density: Density, coordinate: int) -> str:
    return next(site.name for site in density.layout.sites if site.start <= coordinate < site.stop)
