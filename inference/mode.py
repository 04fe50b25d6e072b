"""The posterior mode: L-BFGS from several starts at once, then Newton's method on the exact Hessian."""

import time
from typing import Any

import torch
from rich.progress import Progress

from inference.base import Fit, fresh, joint
from inference.density import Density
from inference.density.rows import likelihood, weighed
from inference.optimum import own_way
from inference.optimum import summit as summit


def fit(
    model: Any,
    *args: Any,
    seed: int = 0,
    num_steps: int = 1000,
    tol: float = 1e-8,
    num_restarts: int = 8,
    jacobian: bool = False,
    prior: bool = True,
    weight: Any = None,
    progress_bar: bool = False,
    **kwargs: Any,
) -> Fit:
    """Find the point of highest posterior density, discrete sites summed out; one draw.

    num_steps: steps of each restart at most.
    tol: stop where the gain in log density still to be had, 1/2 g' H^-1 g, is below tol nats.
    num_restarts: starts, uniform in (-2, 2) in unconstrained coordinates; they climb in one batch.
    jacobian: False for the mode of p(theta | x) in the model's own coordinates, which is what MAP means;
        True for the mode in unconstrained coordinates, about which `laplace` expands. They differ wherever
        a site is constrained: Beta(a, b) has its mode at (a - 1) / (a + b - 2), and at a / (a + b).
    prior: False leaves the prior out, and finds the maximum of the likelihood, where there is one.
    weight: how often each row counts, (rows,).
    A model that knows its only mode (`HasPeak`) is asked for it; num_steps and num_restarts then say nothing.
    How far the point may be off says `fit.standard_errors()`, and `inference.information` with intervals.

    Returns: a Fit with trace `log_density`, (step,), of the best start, and in info whether it converged,
        why not, the gradient's norm, every restart's end, and how many distinct modes they found.
    Raises: Unsupported when a site is neither continuous nor can be summed out; without prior or with weights, where
        rows have latents of their own.
    Source: Nocedal and Wright (2006), chapters 3 and 7.
    """
    began = time.perf_counter()
    with fresh(model, args, kwargs, seed=seed) as own, Progress(disable=not progress_bar) as bar:
        bar.add_task("mode", total=None)
        peak = own_way.peak(own, args, kwargs) if prior and weight is None else None
        if peak is not None:
            draws, info = own_way.point(peak), own_way.report(peak, tol, seed, began)
            return Fit(own, args, kwargs, "mode", draws, {"log_density": torch.tensor([peak.log_density])}, info=info)
        density = Density.of(_objective(own, args, kwargs, prior, weight), args, kwargs, jacobian=jacobian)
        generator = torch.Generator(torch.empty(0).device).manual_seed(seed)
        top = summit.find(density, generator, num_restarts=num_restarts, num_steps=num_steps, tol=tol)
        converged, message = summit.report(density, top, tol)
        draws = {name: value[None] for name, value in density.constrain(top.x[None]).items()}
        steps = int(top.ascent.steps[top.best]) + 1
        trace = {"log_density": top.ascent.values[top.best, :steps]}
        info = {"seed": seed, "converged": converged, "message": message, "log_density": top.log_prob}
        info |= {"grad_norm": float(top.grad.norm()), "decrement": top.decrement, "jacobian": jacobian}
        info |= {"tol": tol, "num_steps": steps - 1, "num_modes": summit.num_modes(top.ascent)}
        info |= {"prior": prior} | ({} if weight is None else {"weight": torch.as_tensor(weight)})
        info |= {"restarts": summit.restarts(top.ascent), "seconds": time.perf_counter() - began}
        return Fit(own, args, kwargs, "mode", draws, trace, info=info)


def _objective(model: Any, args: Any, kwargs: Any, prior: bool, weight: Any) -> Any:
    """The program whose density is climbed."""
    program = joint(model, args, kwargs)
    if weight is not None:
        program = weighed(program, args, kwargs, weight)
    return program if prior else likelihood(program, args, kwargs)
