"""Laplace's approximation: a Gaussian at the mode, with the exact Hessian of the enumerated density."""

import math
import time
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from inference.base import Fit, Unsupported, fresh, joint
from inference.density import Density
from inference.optimum import summit as summit
from inference.optimum.blocks import BLOCK, log_probs
from inference.psis import TRUSTED, psis, verdict


def fit(
    model: Any,
    *args: Any,
    seed: int = 0,
    num_samples: int = 1000,
    num_steps: int = 1000,
    tol: float = 1e-8,
    num_restarts: int = 8,
    progress_bar: bool = False,
    **kwargs: Any,
) -> Fit:
    """Draw from N(x_hat, (-H)^-1) in unconstrained coordinates, and turn the draws into the sites' values.

        log p(D) ~ log p(D, x_hat) + dim/2 log 2 pi - 1/2 log |-H|

    x_hat is the highest mode that num_restarts climbs find, and H the Hessian there, discrete sites summed out.

    Returns: a Fit of independent draws as chain 1, with stats `lp`, and in info `log_evidence`, the mode's
        `log_density`, whether the climb converged, and PSIS `khat` of the draws against the density; the
        Gaussian itself, in unconstrained coordinates, is its state: `loc` and `precision_tril`.
    Raises: Unsupported when minus the Hessian is not positive definite, naming the site along which the
        density does not fall.
    Source: Bishop (2006), section 4.4; Vehtari et al. (2024) for k-hat.
    """
    began = time.perf_counter()
    with fresh(model, args, kwargs, seed=seed) as own, Progress(disable=not progress_bar) as bar:
        bar.add_task("laplace", total=None)
        density = Density.of(joint(own, args, kwargs), args, kwargs)
        generator = torch.Generator(torch.empty(0).device).manual_seed(seed)
        top = summit.find(density, generator, num_restarts=num_restarts, num_steps=num_steps, tol=tol, newton=10**9)
        factor = _factor(density, top)
        converged, message = summit.report(density, top, tol)
        x, log_q = _draw(top.x, factor, num_samples, generator)
        lp = log_probs(density.batched(min(num_samples, BLOCK)), x)
        khat = psis(lp - log_q)[1]
        draws = {name: value[None] for name, value in density.constrain(x).items()}
        evidence = top.log_prob + 0.5 * density.dim * math.log(2 * math.pi) - _half_log_det(factor)
        info = {"seed": seed, "converged": converged, "message": _message(message, khat), "khat": khat}
        info |= {"log_evidence": evidence, "log_density": top.log_prob, "decrement": top.decrement}
        info |= {"grad_norm": float(top.grad.norm()), "num_modes": summit.num_modes(top.ascent), "tol": tol}
        info |= {"restarts": summit.restarts(top.ascent), "seconds": time.perf_counter() - began}
        state = {"loc": top.x, "precision_tril": factor}
        best = top.ascent.values[top.best, : int(top.ascent.steps[top.best]) + 1]
        return Fit(own, args, kwargs, "laplace", draws, {"log_density": best}, {"lp": lp[None]}, info, state=state)


def _factor(density: Density, top: summit.Summit) -> Tensor:
    """Cholesky factor of minus the Hessian, (dim, dim)."""
    assert top.hessian is not None
    level = summit.flat(density, top.hessian)
    if level is not None:
        raise Unsupported(
            f"minus the Hessian at the mode is not positive definite: along site {level.site!r} it has the "
            f"eigenvalue {level.eigenvalue:.3g}, so there is no Gaussian; is that site identified?"
        )
    return torch.linalg.cholesky(-top.hessian)


def _draw(mode: Tensor, factor: Tensor, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws, (S, dim), of N(mode, (factor factor')^-1), and their log density, (S,)."""
    z = torch.randn(number, len(mode), generator=generator, dtype=mode.dtype, device=mode.device)
    x = mode + torch.linalg.solve_triangular(factor.mT, z.mT, upper=True).mT  # (S, dim)
    log_q = -0.5 * ((z * z).sum(-1) + len(mode) * math.log(2 * math.pi)) + _half_log_det(factor)
    return x, log_q


def _half_log_det(factor: Tensor) -> float:
    return float(factor.diagonal().log().sum())


def _message(message: str, khat: float) -> str:
    return message if khat <= TRUSTED else f"{message}; {verdict(khat)}"
