"""Stochastic ascent of the ELBO on a batched log density: several restarts and many draws in one evaluation."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from inference.density import Density
from inference.density.executor import Batched, chains_innermost
from inference.svi.fixed import climb
from inference.svi.guides import Guide
from inference.training.checkpoint import Checkpoint
from inference.training.plateau import Plateau

WINDOW = 100  # steps over which the ELBO is averaged
BETAS = 0.9, 0.99  # Adam's averages; the second is shorter than a network's, as the slope falls fast
FIRST_STEPS = 100  # of the deterministic climb before the stochastic one

State = dict[str, Tensor]
Gradient = Literal["path", "score", "natural"]


@dataclass
class Ascended:
    """Where the ascent ended: phi (R, size), the ELBO of every step and restart, (steps, R), and how."""

    phi: Tensor
    elbo: Tensor
    batched: Batched
    seconds: dict[str, float]

    @property
    def last(self) -> Tensor:
        """Return the mean ELBO of every restart over the last window, (R,)."""
        return self.elbo[-WINDOW:].mean(0).nan_to_num(-math.inf, -math.inf, -math.inf)


@dataclass
class Ascent:
    """Adam on d ELBO / d phi in the guide's own coordinates; all restarts keep step.

    particles: draws a step and restart. on_window: called with the step and the best restart's ELBO.
    """

    density: Density
    guide: Guide
    restarts: int
    particles: int
    num_steps: int
    lr: float
    plateau: Plateau
    compile: bool | str = "auto"
    checkpoint: Checkpoint | None = None
    on_window: Callable[[int, float], Any] = lambda step, elbo: None
    gradient: Gradient = "path"

    def run(self) -> Ascended:
        """Climb until the plateau rule is satisfied, or for `num_steps`.

        Raises: FloatingPointError when a whole window of steps has no finite ELBO.
        """
        clock, chains = [time.perf_counter()], self.restarts * self.particles
        batched = self.density.batched(chains, calls=self.num_steps, compile=self.compile)
        clock.append(time.perf_counter())
        with torch.no_grad():
            state, elbos = self._resumed() or (self._start(batched), [])
            clock.append(time.perf_counter())
            step = batched.fuse(Step(self.guide, self.gradient))
            while sum(map(len, elbos)) < self.num_steps and not self.plateau.converged:
                self._window(step, state, elbos)
        clock.append(time.perf_counter())
        laps = (after - before for before, after in pairwise(clock))
        seconds = {name: lap for name, lap in zip(("prepare", "start", "ascent"), laps, strict=True)}
        return Ascended(state["phi"], torch.cat(elbos), batched, seconds)

    def _window(self, step: Callable[..., Any], state: State, elbos: list[Tensor]) -> None:
        """One window of steps, its check, its checkpoint."""
        done = sum(map(len, elbos))
        number, rows = min(WINDOW, self.num_steps - done), []
        phi, first, second = state["phi"], state["first"], state["second"]
        like = {"dtype": phi.dtype, "device": phi.device}
        for t in range(done + 1, done + number + 1):
            noise = torch.randn(self.restarts, self.particles, self.guide.noise, **like)
            lr = self.lr * self.plateau.rate
            sizes = lr / (1 - BETAS[0] ** t), 1 / (1 - BETAS[1] ** t), lr
            phi, first, second, elbo = step(phi, first, second, noise, torch.tensor(sizes, **like))
            rows.append(elbo)
        state.update(phi=phi, first=first, second=second)
        elbos.append(torch.stack(rows))
        self._refuse_nothing_finite(state, elbos[-1], done)
        finite = best_restart(elbos[-1])
        if number == WINDOW:
            self.plateau.update(finite)
        self.on_window(done + number, sum(finite) / len(finite))
        if self.checkpoint is not None and number == WINDOW:
            self._save(state, elbos)

    def _start(self, batched: Batched) -> State:
        """The best independent normals for a fixed set of draws, by L-BFGS: near the mass, and its scale."""
        loc = self.density.start(self.restarts, torch.Generator().manual_seed(torch.initial_seed()))
        noise = torch.randn(1, self.particles, self.density.dim, dtype=loc.dtype, device=loc.device)
        noise = (noise - noise.mean(1, keepdim=True)).expand(self.restarts, -1, -1)
        ascent = climb(batched, noise, loc, num_steps=FIRST_STEPS, tol=1e-2)
        phi = self.guide.start(*ascent.x.split(self.density.dim, -1))
        return {"phi": phi, "first": torch.zeros_like(phi), "second": torch.zeros_like(phi)}

    def _refuse_nothing_finite(self, state: State, elbo: Tensor, done: int) -> None:
        if elbo.isfinite().any():
            return
        noise = torch.zeros(self.restarts, 1, self.guide.noise, dtype=elbo.dtype, device=elbo.device)
        x, _ = self.guide.draw(state["phi"], noise)
        _, grad = self.density.value_and_grad(x[0, 0])
        bad = (~grad.isfinite()).nonzero()
        place = int(bad[0]) if len(bad) else -1
        sites = [site.name for site in self.density.layout.sites if site.start <= place < site.stop]
        named = f"the gradient of site {sites[0]!r} is not finite" if sites else "its gradient is finite at the mean"
        raise FloatingPointError(f"step {done + 1}: the ELBO is {float(elbo[0, 0])} at every draw; {named}")

    def _save(self, state: State, elbos: list[Tensor]) -> None:
        assert self.checkpoint is not None
        if self.plateau.converged or self.checkpoint.due():
            tensors = {**state, "elbo": torch.cat(elbos), "random": torch.get_rng_state()}
            self.checkpoint.save(tensors, {"plateau": self.plateau.state()})

    def _resumed(self) -> tuple[State, list[Tensor]] | None:
        found = self.checkpoint.load() if self.checkpoint is not None else None
        if found is None:
            return None
        tensors, facts = found
        self.plateau.restore(facts["plateau"])
        torch.set_rng_state(tensors.pop("random"))
        return {name: tensors[name].to(torch.get_default_device()) for name in ("phi", "first", "second")}, [
            tensors["elbo"]
        ]


@dataclass(frozen=True)
class Step:
    """One step up the ELBO. Equal guides are equal steps, so that what was compiled serves the next fit.

    gradient: "path" and "score" are estimators that Adam follows, "natural" goes along the natural gradient itself.
    """

    guide: Any
    gradient: Gradient = "path"

    def __call__(self, density: Callable[[Tensor], Any], *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return, from phi, Adam's averages, noise and sizes the first three anew, and the ELBO, (R,).

        sizes: lr times Adam's first correction, its second correction, and lr alone.
        """
        phi, first, second, noise, sizes = tensors
        x, log_q = self.guide.draw(phi, noise)
        log_p, grad = density(chains_innermost(x.flatten(0, 1)))
        gain = log_p.reshape(log_q.shape) - log_q  # (R, P)
        elbo = gain.mean(1)  # (R,)
        if self.gradient == "score":
            ascent = score_gradient(gain, self.guide.score(noise))
        else:
            ascent = self.guide.gradient(phi, noise, grad.reshape(x.shape))  # (R, size)
        good = (elbo.isfinite() & ascent.isfinite().all(-1))[:, None]
        ascent = torch.where(good, ascent, 0.0)
        first = BETAS[0] * first + (1 - BETAS[0]) * ascent
        second = BETAS[1] * second + (1 - BETAS[1]) * ascent.square()
        if self.gradient == "natural":
            moved = self.guide.natural(phi, ascent, sizes[2])
        else:
            moved = self.guide.retract(phi, sizes[0] * first / ((sizes[1] * second).sqrt() + 1e-8))
        return torch.where(good, moved, phi), first, second, elbo


def score_gradient(gain: Tensor, score: Tensor) -> Tensor:
    r"""Return an estimate of the ELBO's derivative, (R, size), that needs no derivative of the density.

    .. math:: \frac{1}{P} \sum_p \Big(g_p - \frac{1}{P - 1} \sum_{j \ne p} g_j\Big) \nabla \log q(x_p),
        \quad g = \log p - \log q

    gain: g, (R, P). score: d log q / d step, (R, P, size).
    Source: Ranganath, Gerrish and Blei (2014), Black box variational inference; Salimans and Knowles (2014) for the
    mean of the others as baseline, which leaves it unbiased.
    """
    particles = gain.shape[1]
    return ((gain - gain.mean(1, keepdim=True))[..., None] * score).sum(1) / (particles - 1)


def best_restart(window: Tensor) -> list[float]:
    """Return the finite ELBOs of a window's highest restart, (W, R); where none is all finite, of the soundest."""
    means, sound = window.mean(0), window.isfinite().sum(0)
    place = means.nan_to_num(-math.inf, -math.inf, -math.inf).argmax() if means.isfinite().any() else sound.argmax()
    best = window[:, place]
    return best[best.isfinite()].tolist()
