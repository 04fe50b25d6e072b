"""Bayes by backprop: independent normals over a network's weights, or any model's latents, by minibatches."""

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inference.base import Fit, Unsupported, fresh
from inference.bayes_by_backprop.layers import ESTIMATORS, Layered
from inference.density.minibatch import Minibatches
from inference.density.prior import from_prior
from inference.psis import psis
from inference.training import Checkpoint, Plateau, Training
from inference.training.given import with_gradient
from ppmodels.base import HasNetwork

FIRST = 0.05  # sd of every weight before the first step: noise that does not hide the signal


def fit(
    model: Any,
    *args: Any,
    seed: int = 0,
    num_samples: int = 1000,
    num_steps: int = 20_000,
    lr: float = 0.02,
    batch_size: int | None = None,
    num_particles: int = 4,
    estimator: str = "weights",
    tol: float = 1e-5,
    patience: int = 2,
    compile: bool | str = "auto",
    checkpoint: str | Path | None = None,
    progress_bar: bool = False,
    **kwargs: Any,
) -> Fit:
    """Climb the ELBO of q(x) = prod_j N(mu_j, sigma_j^2), sigma = log(1 + exp rho), in unconstrained coordinates.

        d ELBO / d mu = E[g],   d ELBO / d rho = (E[g eps] + 1 / sigma) / (1 + exp(-rho)),   x = mu + sigma eps

    with g the gradient of log p(x, observed): a step costs one gradient, and the code knows how to weigh the prior
    against a batch of rows.

    batch_size: rows a step, scaled up to all. num_steps, lr: of Adam; lr falls, and the climb ends, where the ELBO
        stands still. num_particles: draws a step. tol, patience: as in `svi`.
    estimator: "weights" draws weights, for any model; "local" draws each linear layer's outputs instead, and
        "flipout" gives each row signs of its own: less noise a step, for networks of linear and convolution layers.
    checkpoint: a file to go on from, if it is there, and to write to; the result is the same to the bit.

    Returns: a Fit of independent draws as chain 1, with trace `elbo` and info `elbo`, `elbo_se`, `khat`; the state is
        `loc` and `scale`, (dim,).
    Raises: Unsupported naming a layer that the estimator cannot treat; FloatingPointError for a NaN loss.
    Source: Blundell et al. (2015), ICML, section 3.2; Kingma, Salimans and Welling (2015), NeurIPS, equation 6; Wen
        et al. (2018), ICLR, equation 4.
    """
    began = time.perf_counter()
    if estimator not in ESTIMATORS:
        raise ValueError(f"no estimator {estimator!r}; there are: {', '.join(ESTIMATORS)}")
    if num_samples < 1 or num_particles < 1:
        raise ValueError(f"num_samples and num_particles must be at least 1; they are {num_samples}, {num_particles}")
    with fresh(model, args, kwargs, seed=seed) as own:
        target = Minibatches.of(
            own, args, kwargs, chains=num_particles, batch_size=batch_size, calls=num_steps,
            compile=compile if estimator == "weights" else False,
        )  # fmt: skip
        if estimator != "weights" and not isinstance(own, HasNetwork):
            raise Unsupported(f"estimator {estimator!r} draws a network's layers; this model has no network")
        generator = torch.Generator(target.density.device).manual_seed(seed)
        start = from_prior(target.density, 1, generator)[0]
        phi = torch.stack([start, torch.full_like(start, math.log(math.expm1(FIRST)))]).requires_grad_()
        rows = args[0].rows if batch_size is not None else 0
        saved = None
        if checkpoint is not None:
            run = {"method": "bayes_by_backprop", "seed": seed, "lr": lr, "batch_size": batch_size}
            saved = Checkpoint(Path(checkpoint), {**run, "particles": num_particles, "estimator": estimator})
        training = Training(
            num_steps, lr, Plateau(tol, patience), rows, batch_size, seed=seed, checkpoint=saved,
            progress_bar=progress_bar,
        )  # fmt: skip
        if estimator == "weights":
            training.run(lambda index: _loss(target, index, phi, num_particles), lambda: {"phi": phi})
        else:
            layered = Layered(own, target.density, args[0], estimator)
            training.run(lambda index: layered.loss(index, phi, num_particles), lambda: {"phi": phi})
        assert training.plateau is not None
        loc, scale = phi.detach()[0], _softplus(phi.detach()[1])
        x, info = _drawn(target, loc, scale, num_samples, generator)
        draws = {name: value[None] for name, value in target.density.constrain(x).items()}
        info |= {"seed": seed, "converged": training.plateau.converged, "message": training.plateau.message()}
        info |= {"num_steps": training.step, "lr": lr, "batch_size": batch_size, "estimator": estimator}
        info |= {"num_particles": num_particles, "executor": target.executor, "seconds": time.perf_counter() - began}
        trace = {"elbo": torch.tensor(training.objective)}
        return Fit(own, args, kwargs, "bayes_by_backprop", draws, trace, {}, info, state={"loc": loc, "scale": scale})


def elbo_and_grad(target: Minibatches, index: Tensor | None, phi: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    """Return an estimate of the ELBO, (), and its gradient in phi = (mu, rho), (2, dim), from noise eps (P, dim)."""
    (mu, rho), sigma = phi, _softplus(phi[1])
    log_prob, grad = target.local(index, mu + sigma * eps)
    entropy = sigma.log().sum() + 0.5 * len(mu) * math.log(2 * math.pi * math.e)
    d_rho = ((grad * eps).mean(0) + 1 / sigma) * rho.sigmoid()
    return log_prob.mean() + entropy, torch.stack([grad.mean(0), d_rho])


def _loss(target: Minibatches, index: Tensor | None, phi: Tensor, particles: int) -> Tensor:
    fixed = phi.detach()
    eps = torch.randn(particles, fixed.shape[1], dtype=fixed.dtype, device=fixed.device)
    elbo, grad = elbo_and_grad(target, index, fixed, eps)
    return with_gradient(phi, -elbo, -grad)


def _softplus(rho: Tensor) -> Tensor:
    return torch.nn.functional.softplus(rho)


def _drawn(
    target: Minibatches, loc: Tensor, scale: Tensor, number: int, generator: torch.Generator
) -> tuple[Tensor, dict[str, Any]]:
    """Draws, (number, dim), and the ELBO of all rows with its Monte Carlo error, and k-hat."""
    z = torch.randn(number, len(loc), generator=generator, dtype=loc.dtype, device=loc.device)
    x = loc + scale * z
    log_q = -0.5 * z.square().sum(-1) - scale.log().sum() - 0.5 * len(loc) * math.log(2 * math.pi)
    blocks = []
    for block in x.split(target.chains):
        short = target.chains - len(block)
        whole = torch.cat([block, block[-1:].expand(short, -1)]) if short else block
        blocks.append(target.everything(whole)[0][: len(block)])
    ratio = torch.cat(blocks) - log_q
    info: dict[str, Any] = {"elbo": float(ratio.mean()), "elbo_se": float(ratio.std()) / math.sqrt(max(1, number))}
    return x, info | ({"khat": psis(ratio)[1]} if number >= 25 else {})
