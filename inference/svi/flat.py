"""A guide by name over the flat density, and the ways to its best parameters."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from inference.base import Unsupported
from inference.density import Density
from inference.density.executor import Batched
from inference.optimum.lbfgs import STATUS
from inference.svi import fixed, forward
from inference.svi.ascent import Ascent
from inference.svi.flow import Flow
from inference.svi.guides import FullRank, Guide, LowRank, MeanField
from inference.training.checkpoint import Checkpoint
from inference.training.plateau import Plateau

LR = 0.1  # posterior sds of the first steps; of a natural step, the share of the way that its curvature promises
FIXED = 64  # draws that stay the same
FEW = 200  # coordinates up to which a linear response is asked for


@dataclass(frozen=True)
class Found:
    """A guide's parameters phi, (size,), the objective on the way, (step,), and what is to be said of it."""

    phi: Tensor
    objective: Tensor
    batched: Batched
    info: dict[str, Any]
    state: dict[str, Any] = field(default_factory=dict)

    def draw(self, guide: Guide, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return x, (number, dim), log q(x) and log p(x), (number,)."""
        phi, chains, parts = self.phi[None], self.batched.chains, []
        for _ in range(-(-number // chains)):
            noise = torch.randn(1, chains, guide.noise, dtype=phi.dtype, device=phi.device)
            x, log_q = guide.draw(phi, noise)
            parts.append((x[0], log_q[0], self.batched(x[0])[0]))
        x, log_q, log_p = (torch.cat(each)[:number] for each in zip(*parts, strict=True))
        return x, log_q, log_p


def flat_guide(name: str, dim: int) -> Guide:
    """Return the guide of this name over `dim` unconstrained coordinates."""
    if name == "flow" and dim < 2:
        raise Unsupported("a flow needs at least two coordinates; use full-rank")
    if name == "low-rank":
        return LowRank(dim, max(1, round(math.sqrt(dim))))
    return {"mean-field": MeanField, "full-rank": FullRank, "flow": Flow}[name](dim)


def refuse(name: str, gradient: str, divergence: str, checkpoint: Any = None) -> None:
    """Raise where a guide has no such way, or the way nothing to go on from."""
    ways = {"guide='blocks'": name == "blocks", f"{gradient=}": gradient == "fixed"}
    for way, once in (ways | {f"{divergence=}": divergence == "forward"}).items():
        if once and checkpoint is not None:
            raise Unsupported(f"{way} runs to its end in one go; leave the checkpoint out")
    if divergence == "forward" and name not in ("mean-field", "full-rank"):
        raise Unsupported(f"forward KL matches moments, which fixes mean-field and full-rank; not {name}")
    if gradient == "fixed" and name != "mean-field":
        raise Unsupported(f"fixed draws leave directions unseen that {name} would widen without end; use mean-field")
    if gradient in ("natural", "score") and name not in ("mean-field", "full-rank"):
        raise Unsupported(f"{name} has no {gradient} gradient; mean-field and full-rank have")


def find(
    density: Density, guide: Guide, options: Any, compile: bool | str, saved: Checkpoint | None,
    on_window: Callable[[int, float], Any],
) -> Found:  # fmt: skip
    """Return the best parameters of a guide by the way that the options name."""
    if options.divergence == "forward":
        return _forward(density, guide, options, compile)
    if options.gradient == "fixed":
        return _fixed(density, guide, options, compile)
    plateau = Plateau(options.tol, options.patience)
    ascent = Ascent(
        density, guide, options.num_restarts or 4, options.num_particles or 16, options.num_steps,
        options.lr or LR, plateau, compile, saved, on_window, options.gradient,
    )  # fmt: skip
    result = ascent.run()
    best = int(result.last.argmax())
    info = {"converged": plateau.converged, "message": plateau.message(), "steps": len(result.elbo)}
    info |= {"restarts": result.last.tolist(), "executor": result.batched.executor}
    return Found(result.phi[best], result.elbo[:, best], result.batched, info)


def _fixed(density: Density, guide: Guide, options: Any, compile: bool | str) -> Found:
    """The top for draws that stay; and, in few coordinates, the covariance by linear response."""
    restarts, particles = options.num_restarts or 4, options.num_particles or FIXED
    batched = density.batched(restarts * particles, calls=200, compile=compile)
    loc = density.start(restarts, torch.Generator().manual_seed(torch.initial_seed()))
    noise = fixed.even(torch.randn(particles, density.dim, dtype=loc.dtype, device=loc.device))
    copies = noise.expand(restarts, -1, -1)
    found = fixed.climb(batched, copies, loc, num_steps=options.num_steps, tol=1e-3 * options.tol)
    best = int(torch.where(found.log_prob.isnan(), -math.inf, found.log_prob).argmax())
    phi, steps = found.x[best], int(found.steps[best])
    info = {"converged": bool(found.converged[best]), "message": STATUS[int(found.status[best])], "steps": steps}
    info |= {"restarts": found.log_prob.tolist(), "executor": batched.executor}
    state = {"linear_response": fixed.linear_response(density, phi, noise)} if density.dim <= FEW else {}
    return Found(phi, found.values[best, : steps + 1], batched, info, state)


def _forward(density: Density, guide: Guide, options: Any, compile: bool | str) -> Found:
    """The guide whose moments are the posterior's."""
    restarts = options.num_restarts or 4
    batched = density.batched(restarts * 16, calls=options.num_steps, compile=compile)
    loc = density.start(restarts, torch.Generator().manual_seed(torch.initial_seed()))
    noise = fixed.even(torch.randn(16, density.dim, dtype=loc.dtype, device=loc.device))
    start = fixed.climb(batched, noise.expand(restarts, -1, -1), loc, num_steps=100, tol=1e-2).x
    mean, log_scale = start.split(density.dim, -1)

    def log_prob(x: Tensor) -> Tensor:
        pad = -len(x) % batched.chains
        whole = torch.cat([x, x[:1].expand(pad, -1)]) if pad else x
        return torch.cat([batched(part)[0] for part in whole.split(batched.chains)])[: len(x)]

    rounds = min(options.num_steps, forward.ROUNDS)
    diagonal = isinstance(guide, MeanField)
    found = forward.match(log_prob, mean, log_scale.exp(), num_rounds=rounds, diagonal=diagonal)
    done = found.effective >= forward.ENOUGH
    said = f"moments by {found.effective:.0f} effective draws in {len(found.bounds)} rounds"
    info = {"converged": done, "message": said, "steps": len(found.bounds), "executor": batched.executor}
    info |= {"forward_khat": found.khat, "log_evidence": found.bounds[-1]}
    tail = found.root.diagonal().log() if diagonal else found.root.flatten()
    return Found(torch.cat([found.loc, tail]), torch.tensor(found.bounds), batched, info)
