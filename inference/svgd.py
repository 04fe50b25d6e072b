"""Stein variational gradient descent: particles that climb the density together and keep one another apart."""

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inference.base import Fit, fresh
from inference.density.minibatch import Minibatches
from inference.density.prior import from_prior
from inference.optimum.lbfgs import maximise
from inference.optimum.scaling import scales
from inference.training import Checkpoint, Training
from inference.training.given import with_gradient

CLIMB = 100  # steps of each particle's own climb before the particles meet


def fit(
    model: Any,
    *args: Any,
    seed: int = 0,
    num_samples: int = 100,
    num_steps: int = 2000,
    lr: float = 0.1,
    batch_size: int | None = None,
    compile: bool | str = "auto",
    checkpoint: str | Path | None = None,
    progress_bar: bool = False,
    **kwargs: Any,
) -> Fit:
    """Move particles x_i, in unconstrained coordinates of curvature about one, along

        phi(x_i) = 1/n sum_j [ k(x_j, x_i) grad log p(x_j) + grad_(x_j) k(x_j, x_i) ]

    by Adam, whose rate falls to zero; k is a Gaussian kernel whose width is the particles' own spread. A single
    particle climbs to the mode; many particles in few dimensions take the posterior's shape, and in many
    dimensions are narrower than it.

    num_samples: particles. lr: of the first step, in units of a posterior sd.
    checkpoint: a file to go on from, if it is there, and to write to; the result is the same to the bit.

    Returns: a Fit with the particles as draws of chain 1; in info the squared kernel Stein discrepancy of the
        particles from the posterior before and after, `ksd_start` and `ksd`, and whether it fell.
    Raises: Unsupported where rows cannot be taken apart, and batch_size asks for it.
    Source: Liu and Wang (2016), NeurIPS, equation 8; Gorham and Mackey (2017), ICML, for the discrepancy's kernel.
    """
    began = time.perf_counter()
    if num_samples < 1:
        raise ValueError(f"num_samples, the particles, must be at least 1; it is {num_samples}")
    with fresh(model, args, kwargs, seed=seed) as own:
        target = Minibatches.of(
            own, args, kwargs, chains=num_samples, batch_size=batch_size, calls=num_steps, compile=compile
        )
        generator = torch.Generator(target.density.device).manual_seed(seed)
        x, scale = _start(target, num_samples, generator)
        u = (x / scale).requires_grad_()
        rows = args[0].rows if batch_size is not None else 0
        first = discrepancy(u.detach(), scale * target.everything(x)[1])
        saved = None
        if checkpoint is not None:
            run = {"method": "svgd", "seed": seed, "lr": lr, "particles": num_samples, "batch_size": batch_size}
            saved = Checkpoint(Path(checkpoint), {**run, "num_steps": num_steps})
        training = Training(
            num_steps, lr, rows=rows, batch_size=batch_size, seed=seed, checkpoint=saved, progress_bar=progress_bar,
            schedule=lambda step: 0.5 * (1 + math.cos(math.pi * step / num_steps)),
        )  # fmt: skip
        training.run(lambda index: _loss(target, index, u, scale), lambda: {"u": u})
        x = u.detach() * scale
        log_prob, grad = target.everything(x)
        ksd = discrepancy(u.detach(), scale * grad)
        draws = {name: value[None] for name, value in target.density.constrain(x).items()}
        info = {"seed": seed, "converged": not ksd > first, "message": f"the Stein discrepancy is {ksd:.3g}"}
        info |= {"ksd_start": first, "ksd": ksd, "num_steps": num_steps, "lr": lr, "batch_size": batch_size}
        info |= {"executor": target.executor, "seconds": time.perf_counter() - began}
        return Fit(own, args, kwargs, "svgd", draws, {}, {"lp": log_prob[None]}, info, state={"x": x})


def direction(x: Tensor, grad: Tensor) -> Tensor:
    """Return phi, (n, dim), of particles x and their scores, both (n, dim)."""
    distance = torch.cdist(x, x).square()  # (n, n)
    apart = distance[~torch.eye(len(x), dtype=torch.bool, device=x.device)]
    width = apart.median() / math.log(len(x) + 1) if len(x) > 1 else distance.new_ones(())
    width = width.clamp(min=torch.finfo(x.dtype).tiny)
    k = (-distance / width).exp()
    repulsion = 2 / width * (k.sum(1, keepdim=True) * x - k @ x)
    return (k @ grad + repulsion) / len(x)


def discrepancy(x: Tensor, grad: Tensor) -> float:
    """Return the squared kernel Stein discrepancy of particles x with scores grad, by k = (1 + |d|^2)^(-1/2)."""
    d = x[:, None] - x  # (n, n, dim)
    base = 1 + d.square().sum(-1)
    k, slope = base.rsqrt(), -base.pow(-1.5)  # slope: dk / d(|d|^2 / 2)
    along = ((grad[:, None] - grad) * d).sum(-1)
    trace = -x.shape[1] * slope - 3 * (base - 1) * base.pow(-2.5)
    return float((k * (grad @ grad.mT) - slope * along + trace).mean())


def _start(target: Minibatches, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Particles scattered around the modes that they climb to from the prior, and the coordinates' scales, (dim,).

    A single particle starts where the prior puts it.
    """
    x = from_prior(target.density, number, generator)
    top = maximise(target.everything, x, num_steps=CLIMB, tol=1e-2).x
    scale = scales(lambda at: target.everything(at)[1], top, generator)
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return (top + scale * noise if number > 1 else x), scale


def _loss(target: Minibatches, index: Tensor | None, u: Tensor, scale: Tensor) -> Tensor:
    log_prob, grad = target.local(index, u.detach() * scale)
    return with_gradient(u, -log_prob.mean(), -direction(u.detach(), scale * grad))
