"""Around a point: draws of the Gaussian that the curvature of the log density gives, for what needs a distribution."""

import logging
from dataclasses import replace

import torch

from inference.base import Draws, Fit, Unsupported, conditioned, fresh
from inference.density import Density

log = logging.getLogger("inference")

DRAWS = 1000
WIDEST = 300  # coordinates; a larger Hessian takes too long to be made unasked
SAID = f"at {DRAWS} draws of N(point, (-Hessian)^-1) in unconstrained coordinates; the method itself gave a point"


def around(fit: Fit) -> tuple[Fit, str]:
    """Return a fit of one draw with draws around it instead, and what to say of them; any other fit as it is.

    Leave-one-out by importance sampling, and predictive checks, ask how far the latents might be elsewhere; one draw
    cannot say. Where there is no such Gaussian, the point stays: sites that only svi learns, a density that does
    not fall in every direction, or more than `WIDEST` coordinates.
    """
    if not fit.draws or {value.shape[:2].numel() for value in fit.draws.values()} != {1}:
        return fit, ""
    try:
        return replace(fit, draws=_drawn(fit), stats={}, warmup_draws={}), SAID
    except (Unsupported, RuntimeError, ValueError) as reason:
        log.info("log_likelihood and posterior_predictive are those of the point: %s", reason)
        return fit, ""


def _drawn(fit: Fit) -> Draws:
    with fresh(fit.model, fit.args, fit.kwargs, seed=int(fit.info.get("seed", 0))) as model:
        density = Density.of(conditioned(model), fit.args, fit.kwargs)
        if density.dim > WIDEST:
            raise Unsupported(f"{density.dim} coordinates are more than {WIDEST}")
        point = density.unconstrain({name: value[0, 0] for name, value in fit.draws.items()})  # (dim,)
        factor = torch.linalg.cholesky(-density.hessian(point))  # (dim, dim), lower
        noise = torch.randn(DRAWS, density.dim, dtype=point.dtype, device=point.device)
        x = point + torch.linalg.solve_triangular(factor.mT, noise.mT, upper=True).mT  # (S, dim)
        return {name: value[None] for name, value in density.constrain(x).items()}
