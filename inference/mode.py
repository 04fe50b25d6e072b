"""The posterior mode: L-BFGS from several starts at once, then Newton's method on the exact Hessian."""

import time
from typing import Any

import torch
from rich.progress import Progress

from inference.base import Fit, Unsupported, fresh, joint
from inference.density import Density
from inference.density.rows import likelihood, weighed
from inference.density.some_rows import of_rows
from inference.optimum import own_way
from inference.optimum import summit as summit
from inference.training.pieces import Pieces
from ppmodels.base import Data, Model

__all__ = ["Stream", "fit"]


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


class Stream:
    """A point moved a few steps of Adam up the posterior's density by each piece of the rows, which is then forgotten.

    The answer is the average of where the pieces led.

    rows: how many there are in all, if known; else as many as have come, so the same rows twice count twice.
    prior: as for `fit`. batch_steps, lr: see `inference.training.pieces.Pieces`.

    Raises: Unsupported for a plain program, and, at the first piece, where rows have latents of their own.
    """

    def __init__(
        self, model: Any, *, batch_steps: int = 10, lr: float = 0.05, rows: int | None = None, prior: bool = True,
        seed: int = 0,
    ) -> None:  # fmt: skip
        if not isinstance(model, Model):
            raise Unsupported("rows in pieces are those of a `Data`; a plain program has none")
        self.model, self.prior, self.seed, self._last = model, prior, seed, Data(0)
        self.pieces, self.x = Pieces(batch_steps, lr, rows, seed), None

    def learn(self, data: Data, weight: Any = None) -> "Stream":
        """Take the next steps on these rows, each as often as its weight, (rows,), says."""
        piece = self.pieces.take(data)
        with fresh(self.model, (piece,), seed=self.seed) as own:
            density = of_rows(_objective(own, (piece,), {}, self.prior, weight), piece, jacobian=False)
            if self.x is None:
                self.x = density.start(1, torch.Generator().manual_seed(self.seed), radius=0.01)[0]
            x = self.x.clone().requires_grad_()
            self.pieces.descend(piece, lambda _: -density.log_prob(x), lambda: {"x": x})
            self.x, self._last = x.detach(), data
        return self

    def fit(self) -> Fit:
        """Return the point as it is now; the fit's data are the last piece."""
        if self.x is None:
            raise ValueError("no rows have been learned yet")
        with fresh(self.model, (self._last,), seed=self.seed) as own:
            density = Density.of(joint(own, (self._last,), {}), (self._last,), {}, jacobian=False)
            draws = {name: value[None] for name, value in density.constrain(self.pieces.average["x"][None]).items()}
        climbed = self.pieces.state[0]["objective"]
        info = {"seed": self.seed, "message": f"{len(climbed)} steps on {self.pieces.seen} rows in pieces"}
        return Fit(own, (self._last,), {}, "mode", draws, {"log_density": climbed}, info=info)


def _objective(model: Any, args: Any, kwargs: Any, prior: bool, weight: Any) -> Any:
    """The program whose density is climbed."""
    program = joint(model, args, kwargs)
    if weight is not None:
        program = weighed(program, args, kwargs, weight)
    return program if prior else likelihood(program, args, kwargs)
