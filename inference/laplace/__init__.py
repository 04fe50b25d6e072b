"""Laplace's approximation: a Gaussian at the mode, with the Hessian of the enumerated density or a part of it."""

import math
import time
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from inference.base import Fit, Unsupported, fresh, joint
from inference.density import Density
from inference.laplace.gaussians import Dense, Gaussian
from inference.laplace.linearised import Linearised
from inference.laplace.peak import by_its_own_way
from inference.laplace.structures import STRUCTURES
from inference.laplace.summits import Mode
from inference.laplace.tuning import refuse, tune
from inference.optimum import summit as summit
from inference.optimum.blocks import log_probs, together
from inference.psis import TRUSTED, psis, verdict
from ppmodels.base import HasNetwork


def fit(
    model: Any,
    *args: Any,
    seed: int = 0,
    num_samples: int = 1000,
    num_steps: int = 1000,
    tol: float = 1e-8,
    num_restarts: int = 8,
    structure: str = "full",
    subnetwork: int | None = None,
    tuned: tuple[str, ...] = (),
    post_hoc: bool = False,
    linearise: bool | None = None,
    progress_bar: bool = False,
    **kwargs: Any,
) -> Fit:
    """Draw from N(x_hat, (-H)^-1) in unconstrained coordinates, and turn the draws into the sites' values.

        log p(D) ~ log p(D, x_hat) + dim/2 log 2 pi - 1/2 log |-H|

    x_hat is the highest mode that num_restarts climbs find, and H the Hessian there, discrete sites summed out.

    structure: "full"; "diagonal"; "subnetwork", the coordinates of largest variance, the others fixed. Of a model
        with a network also "ggn", Gauss and Newton's matrix, "kfac", its Kronecker factors, and "last-layer".
    subnetwork: how many coordinates it has; a tenth of all unless said.
    tuned: fields of the model, as ("scale", "noise"), set to where the evidence is highest; from the best of the
        first climbs one climb goes on as they change. A coarser tol, 0.01 nats, is good enough for this.
    post_hoc: let the mode be that of the fields as they are given, and tune them with it held, which costs less.
    linearise: let the fit's model be the network's tangent at the mode, which is what Gauss and Newton's matrix is
        the posterior of; True unless said, wherever that matrix is used.

    Returns: a Fit of independent draws as chain 1, with stats `lp`, and in info `log_evidence`, the mode's
        `log_density`, whether the climb converged, and PSIS `khat` of the draws against the density, unless
        linearised; the state is the Gaussian, in unconstrained coordinates: `loc`, and `precision_tril` or `sd`.
    Raises: Unsupported when minus the Hessian is not positive definite, naming the site along which the
        density does not fall; or when a layer is of a kind that the structure does not know, naming it.
    Source: Bishop (2006), section 4.4; Vehtari et al. (2024) for k-hat; Daxberger et al. (2021) for structures.
    """
    began = time.perf_counter()
    if structure not in STRUCTURES:
        raise ValueError(f"no structure {structure!r}; there are: {', '.join(STRUCTURES)}")
    if tuned:
        refuse(model, tuned)
    elif structure == "full" and (found := by_its_own_way(model, args, kwargs, seed, num_samples, tol)):
        return found
    with fresh(model, args, kwargs, seed=seed) as own, Progress(disable=not progress_bar) as bar:
        bar.add_task("laplace", total=None)
        generator = torch.Generator(torch.empty(0).device).manual_seed(seed)
        options = {"num_restarts": num_restarts, "num_steps": num_steps, "tol": tol}
        options |= {"newton": 10**9 if structure == "full" else 0}

        density = Density.of(joint(own, args, kwargs), args, kwargs)
        mode, rounds, settled = Mode.of(own, density, generator, structure, subnetwork, options), 0, True
        if tuned:
            climb = (lambda at: at) if post_hoc else (lambda at: at.climbed(generator, options))
            mode, rounds, settled = tune(mode, tuned, climb, tol)
        own, gaussian = mode.model, mode.gaussian
        straight = _straight(own, structure, linearise)
        z = torch.randn(num_samples, mode.density.dim, generator=generator, dtype=mode.x.dtype, device=mode.x.device)
        x = mode.x + gaussian.draw(z)
        draws = {name: value[None] for name, value in mode.density.constrain(x).items()}
        converged, message = summit.report(mode.density, mode.top, tol)
        if not settled:
            converged, message = False, f"after {rounds} rounds the evidence is not at its maximum; {message}"
        info = {"seed": seed, "converged": converged, "message": message, "structure": structure, "tol": tol}
        stats, seen = ({}, {}) if straight or gaussian.free < len(mode.x) else _weighed(mode, gaussian, x, z)
        info |= seen | {"message": _message(message, seen)}
        info |= mode.facts() | {"linearised": straight}
        info |= {name: getattr(own, name) for name in tuned} | ({"rounds": rounds} if tuned else {})
        state = {"loc": mode.x} | _kept(gaussian, mode.density.dim)
        info |= {"seconds": time.perf_counter() - began}
        whole: Any = Linearised(own, mode.weights(own)) if straight else own
        return Fit(whole, args, kwargs, "laplace", draws, {"log_density": mode.path()}, stats, info, state=state)


def _straight(model: Any, structure: str, linearise: bool | None) -> bool:
    """Whether predictions follow the network's tangent at the mode."""
    if linearise and not isinstance(model, HasNetwork):
        raise Unsupported("linearise takes a network's tangent; this model has no network")
    return structure != "full" and isinstance(model, HasNetwork) if linearise is None else linearise


def _weighed(mode: Mode, gaussian: Gaussian, x: Tensor, z: Tensor) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The draws' log densities, and how far importance weights say that the Gaussian is from the posterior."""
    lp = log_probs(mode.density.batched(min(len(x), together(mode.density))), x)
    log_q = -0.5 * ((z * z).sum(-1) + z.shape[1] * math.log(2 * math.pi)) + gaussian.half_log_det()
    return {"lp": lp[None]}, {"khat": psis(lp - log_q)[1]}


def _message(message: str, seen: dict[str, Any]) -> str:
    khat = seen.get("khat", 0.0)
    return message if khat <= TRUSTED else f"{message}; {verdict(khat)}"


def _kept(gaussian: Gaussian, dim: int) -> dict[str, Any]:
    """The Gaussian's own numbers, where they are few."""
    if isinstance(gaussian, Dense) and gaussian.free == dim and bool((gaussian.places == torch.arange(dim)).all()):
        return {"precision_tril": gaussian.factor}
    return {"variance": gaussian.variance()}
