"""Gaussians along the way up to a mode, and the one of each path that is closest to the posterior.

Source: Zhang, Carpenter, Gelman and Vehtari (2022), Pathfinder, JMLR 23.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from inference.density import Batched
from inference.optimum.blocks import log_probs
from inference.optimum.curvature import curved, diagonal
from inference.optimum.lbfgs import Ascent, Trajectory, maximise
from inference.optimum.normals import Normals, from_pairs

ELEMENTS = 20_000_000  # of the largest tensor that a race of iterates makes at once
FEW, FINALISTS = 5, 6  # draws of the first heat, and iterates of a path that reach the second


@dataclass(frozen=True)
class Approximation:
    """The best Gaussian of every path.

    normals: batch (P,). elbo (P,): minus infinity for a path that found none. step (P,): the iterate it is
    from. draws (P, S, D) of them, with log_q, log_p (P, S). ascent: how the paths climbed.
    """

    normals: Normals
    elbo: Tensor
    step: Tensor
    draws: Tensor
    log_q: Tensor
    log_p: Tensor
    ascent: Ascent

    @property
    def loc(self) -> Tensor:
        """Means, (P, D)."""
        return self.normals.loc


def approximate(
    batched: Batched,
    start: Tensor,
    generator: torch.Generator,
    *,
    wide: Batched | None = None,
    num_draws: int = 25,
    num_steps: int = 200,
    tol: float = 1e-6,
    memory: int = 6,
    num_elbo_draws: int = 20,
) -> Approximation:
    """Climb from every row of start, (P, D), and return the Gaussian with the highest ELBO along each path.

    batched: value and gradient for P points. wide: the same for more points at once, for the Monte Carlo.
    The ELBOs race: all iterates are judged by few draws, and the best of each path by num_elbo_draws.
    """
    with torch.no_grad():
        ascent = maximise(batched, start, num_steps=num_steps, tol=tol, memory=memory, keep=True)
        assert ascent.trajectory is not None
        race = _Race(ascent.trajectory, memory, wide or batched, generator)
        step, elbo = race.winner(num_elbo_draws)
        normals, good = race.normals(step[:, None])
        normals, elbo = normals[:, 0], torch.where(good[:, 0], elbo, -math.inf)
        u = race.noise(num_draws)  # (P, S, D)
        draws = normals.transform(u)
        log_p = log_probs(wide or batched, draws.flatten(0, 1)).reshape(draws.shape[:2])
        return Approximation(normals, elbo, step, draws, -normals.entropy_at(u), log_p, ascent)


class _Race:
    """Which iterate of every path has the Gaussian closest to the density?"""

    def __init__(self, way: Trajectory, memory: int, batched: Batched, generator: torch.Generator) -> None:
        self.way, self.memory, self.batched, self.generator = way, memory, batched, generator
        self.s, self.y = way.x.diff(dim=1), -way.grad.diff(dim=1)  # (P, T - 1, D)
        self.scales = self._scales()

    def winner(self, num_draws: int) -> tuple[Tensor, Tensor]:
        """The best step of every path and its ELBO, (P,)."""
        paths, length = self.way.log_prob.shape
        all_steps = torch.arange(1, length, device=self.way.x.device).expand(paths, -1)
        if length < 2:
            return self.way.length - 1, torch.full_like(self.way.log_prob[:, 0], -math.inf)
        first = self._elbos(all_steps, self._sphere(FEW))
        first = torch.where(all_steps < self.way.length[:, None], first, -math.inf)
        few = first.topk(min(FINALISTS, length - 1), dim=1).indices
        steps = all_steps.gather(1, few)
        elbos = self._elbos(steps, self.noise(num_draws))
        elbos = torch.where(first.gather(1, few) > -math.inf, elbos, -math.inf)
        elbo, place = elbos.max(1)
        return steps.gather(1, place[:, None])[:, 0], elbo

    def normals(self, steps: Tensor) -> tuple[Normals, Tensor]:
        """The Gaussians of these iterates, steps (P, K), and which are sound."""
        rows = torch.arange(len(steps), device=steps.device)[:, None]
        back = torch.arange(-self.memory, 0, device=steps.device)
        window = steps[..., None] + back  # (P, K, M): the pairs before each iterate
        inside = (window >= 0)[..., None]
        s, y = (torch.where(inside, v[rows[..., None], window.clamp(min=0)], 0.0) for v in (self.s, self.y))
        scale = self.scales[rows, steps]
        return from_pairs(self.way.x[rows, steps], self.way.grad[rows, steps], scale, s, y)

    def noise(self, draws: int) -> Tensor:
        """Standard normal numbers, (P, draws, D)."""
        x = self.way.x
        shape = len(x), draws, x.shape[-1]
        return torch.randn(shape, generator=self.generator, dtype=x.dtype, device=x.device)

    def _sphere(self, draws: int) -> Tensor:
        """Noise of mean square one in every path: luck in its length favours Gaussians that are too wide."""
        u = self.noise(draws)
        return u / u.square().mean((1, 2), keepdim=True).sqrt()

    def _elbos(self, steps: Tensor, u: Tensor) -> Tensor:
        """ELBO of these iterates, (P, K), by the same noise u, (P, S, D), for all iterates of a path."""
        per_step = len(steps) * u.shape[2] * (u.shape[1] + 8 * self.memory)
        parts = [self._elbo(block, u[:, None]) for block in steps.split(max(1, ELEMENTS // per_step), 1)]
        return torch.cat(parts, 1)

    def _elbo(self, steps: Tensor, u: Tensor) -> Tensor:
        normals, good = self.normals(steps)
        u = u.expand(-1, steps.shape[1], -1, -1)
        draws = normals.transform(u)  # (P, K, S, D)
        log_p = log_probs(self.batched, draws.flatten(0, 2)).reshape(draws.shape[:3])
        elbo = (log_p + normals.entropy_at(u)).mean(-1)
        return torch.where(good & elbo.isfinite(), elbo, -math.inf)

    def _scales(self) -> Tensor:
        """Diagonal of the initial inverse Hessian at every iterate, (P, T, D)."""
        scales = [torch.ones_like(self.way.x[:, 0])]
        for s, y in zip(self.s.unbind(1), self.y.unbind(1), strict=True):
            new = diagonal(scales[-1], s, y)
            good = curved(s, y) & new.isfinite().all(-1) & (new > 0).all(-1)
            scales.append(torch.where(good[:, None], new, scales[-1]))
        return torch.stack(scales, 1)
