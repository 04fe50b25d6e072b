"""Stochastic weight averaging, Gaussian: where constant steps of gradient descent wander, as a posterior."""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from inference.base import Fit, Unsupported, fresh
from inference.density.minibatch import Minibatches
from inference.density.prior import from_prior
from inference.density.some_rows import rows_of
from inference.optimum.scaling import stiffness
from inference.training import Checkpoint, Plateau, Training
from inference.training.given import with_gradient
from inference.training.looks import Looks
from inference.training.minibatches import minibatch

NOISE = 50  # batches whose gradients tell how much they differ


def fit(
    model: Any,
    *args: Any,
    seed: int = 0,
    num_samples: int = 200,
    num_chains: int = 1,
    num_steps: int = 10_000,
    num_snapshots: int = 100,
    thinning: int = 10,
    rank: int = 20,
    scale: float = 0.5,
    lr: float | None = None,
    batch_size: int | None = None,
    tol: float = 1e-5,
    patience: int = 2,
    compile: bool | str = "auto",
    checkpoint: str | Path | None = None,
    progress_bar: bool = False,
    **kwargs: Any,
) -> Fit:
    """Climb, go on with constant steps x <- x + lr grad, and draw from the Gaussian of the snapshots.

        x ~ N(mean, scale (diag(square - mean^2) + D D' / (K - 1))),   D the last K = `rank` deviations

    batch_size: rows a step; a tenth of all unless said. The gradient's noise is what makes the steps wander.
    num_steps: of the climb, by Adam. num_snapshots, thinning: snapshots, and steps from one to the next.
    rank: 0 for the diagonal alone, as in SWA with its variances. scale: 1/2 as published; 0 is SWA,
        the average alone.
    lr: by default 2 dim / tr V, V the covariance of the gradient's noise, at which the wandering has the
        posterior's width; never above the largest that is stable.
    num_chains: climbs, each with a Gaussian of its own; they may be different modes.
    checkpoint: a file for the climb to go on from, if it is there, and to write to.

    Returns: a Fit whose state keeps `mean` and `square`, (chain, dim), and `deviations`, in unconstrained coordinates.
    Raises: Unsupported where rows cannot be taken apart: without minibatches nothing wanders.
    Source: Maddox et al. (2019), NeurIPS, equation 1; Mandt, Hoffman and Blei (2017), JMLR 18, theorem 1, for lr.
    """
    began = time.perf_counter()
    if min(num_samples, num_chains, num_snapshots, thinning) < 1 or rank < 0:
        raise ValueError("num_samples, num_chains, num_snapshots and thinning must be at least 1, rank at least 0")
    with fresh(model, args, kwargs, seed=seed) as own, Progress(disable=not progress_bar) as bar:
        rows = rows_of(own, args, kwargs).rows
        if rows < 2:
            raise Unsupported("a single row has no minibatches, without whose noise nothing wanders")
        size = min(batch_size or max(1, rows // 10), rows // 2)
        calls = num_steps + num_snapshots * thinning
        target = Minibatches.of(own, args, kwargs, chains=num_chains, batch_size=size, calls=calls, compile=compile)
        saved = None
        if checkpoint is not None:
            run = {"method": "swag", "seed": seed, "batch_size": size, "num_chains": num_chains}
            saved = Checkpoint(Path(checkpoint), run)
        generator = torch.Generator(target.density.device).manual_seed(seed)
        x = from_prior(target.density, num_chains, generator).requires_grad_()
        looks = Looks(lambda: float(target.everything(x.detach())[0].mean()))
        training = Training(
            num_steps, 0.02, Plateau(tol, patience), rows, size, seed=seed, checkpoint=saved,
            progress_bar=progress_bar, callbacks=[looks.take],
        )  # fmt: skip
        training.run(lambda index: _loss(target, index, x), lambda: {"x": x})
        walk = Walk(target, x.detach(), rows, size, seed, training.step, rank)
        walk.lr = walk.suited(generator) if lr is None else lr
        walk.go(num_snapshots, thinning, bar)
        drawn = walk.draw(num_samples, scale, generator)
        draws = target.density.constrain(drawn)
        assert training.plateau is not None
        info = {"seed": seed, "converged": training.plateau.converged, "message": training.plateau.message()}
        info |= {"lr": walk.lr, "batch_size": size, "rank": rank, "num_chains": num_chains, "scale": scale}
        info |= {"executor": target.executor, "seconds": time.perf_counter() - began}
        state = {"mean": walk.mean, "square": walk.square, "deviations": torch.stack(walk.deviations, 1)}
        trace = {"log_density": torch.tensor(looks.values)}
        return Fit(own, args, kwargs, "swag", draws, trace, {}, info, state=state)


@dataclass
class Walk:
    """Constant steps from x (C, dim), and running moments of the snapshots on the way."""

    target: Minibatches
    x: Tensor
    rows: int
    batch_size: int
    seed: int
    seen: int
    rank: int
    lr: float = 0.0
    mean: Tensor = field(init=False)
    square: Tensor = field(init=False)
    deviations: list[Tensor] = field(default_factory=list)

    def suited(self, generator: torch.Generator) -> float:
        """Return the step size at which the gradient's noise makes x wander as widely as the posterior is."""
        grads = torch.stack([self._gradient(self.seen + k, self.x) for k in range(NOISE)])  # (NOISE, C, dim)
        noise = float(grads.var(0).sum(-1).mean())
        largest = stiffness(lambda x: self._gradient(0, x), self.x, torch.ones_like(self.x[0]), generator)
        return min(2 * self.x.shape[1] / max(noise, 1e-30), 0.5 / max(largest, 1e-30))

    def go(self, num_snapshots: int, thinning: int, bar: Progress) -> None:
        """Take num_snapshots times thinning steps.

        Raises: FloatingPointError when a chain leaves the numbers.
        """
        task = bar.add_task("swag", total=num_snapshots)
        self.mean, self.square = torch.zeros_like(self.x), torch.zeros_like(self.x)
        for k in range(1, num_snapshots + 1):
            for _ in range(thinning):
                self.x = self.x + self.lr * self._gradient(self.seen, self.x)
                self.seen += 1
            if not bool(self.x.isfinite().all()):
                raise FloatingPointError(
                    f"snapshot {k}: a chain has left the numbers; lower lr, which is {self.lr:.3g}"
                )
            self.mean = self.mean + (self.x - self.mean) / k
            self.square = self.square + (self.x.square() - self.square) / k
            self.deviations = [*self.deviations, self.x - self.mean][-max(self.rank, 1) :]
            bar.update(task, completed=k)

    def draw(self, number: int, scale: float, generator: torch.Generator) -> Tensor:
        """Return draws of each chain's Gaussian, (C, number, dim)."""
        deviations = torch.stack(self.deviations, 1)  # (C, K, dim)
        chains, last, dim = deviations.shape
        variance = (self.square - self.mean.square()).clamp(min=0.0)
        like = {"generator": generator, "dtype": self.x.dtype, "device": self.x.device}
        z = torch.randn(chains, number, dim, **like)
        wandered = variance.sqrt()[:, None] * z
        if self.rank == 0 or last < 2:
            return self.mean[:, None] + math.sqrt(2 * scale) * wandered
        w = torch.randn(chains, number, last, **like)
        return self.mean[:, None] + math.sqrt(scale) * (wandered + w @ deviations / math.sqrt(last - 1))

    def _gradient(self, number: int, x: Tensor) -> Tensor:
        """By rows drawn anew in every step: the batches of an epoch make up for one another, and wander less."""
        first = number * math.ceil(self.rows / self.batch_size)
        index = minibatch(self.rows, self.batch_size, first, self.seed)
        assert index is not None
        return self.target.together(index, x)[1]


def _loss(target: Minibatches, index: Tensor | None, x: Tensor) -> Tensor:
    """Minus the chains' mean log density, whose gradient is each chain's own."""
    log_prob, grad = target.local(index, x.detach())
    return with_gradient(x, -log_prob.mean(), -grad / len(x))
