"""Monte Carlo dropout: a network whose units are there or not, as a posterior over its weights."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inference.base import Fit, Unsupported, fresh
from inference.density import Density
from inference.density.minibatch import Minibatches
from inference.density.prior import from_prior
from inference.training import Checkpoint, Plateau, Training
from inference.training.given import with_gradient
from ppmodels.base import HasNetwork


def fit(
    model: Any,
    *args: Any,
    seed: int = 0,
    rate: float = 0.1,
    inputs: bool = False,
    num_samples: int = 200,
    num_steps: int = 10_000,
    lr: float = 0.02,
    batch_size: int | None = None,
    num_particles: int = 4,
    tol: float = 1e-5,
    patience: int = 2,
    compile: bool | str = "auto",
    checkpoint: str | Path | None = None,
    progress_bar: bool = False,
    **kwargs: Any,
) -> Fit:
    """Climb E_m log p(latents = m lambda, observed) in lambda, m a mask; the draws are m lambda.

    This is variational inference by q_j = p delta_0 + (1 - p) delta_lambda_j, whose entropy is constant, with the
    weights that leave one unit sharing their mask; so the draws are weights, and every prediction is the model's.

    rate: p, the share of units that are left out. inputs: the network's inputs too, not only hidden units.
    num_steps, lr: of Adam; lr falls, and the climb ends, where the objective stands still.
    num_particles: masks a step. tol, patience: as in `svi`.
    checkpoint: a file to go on from, if it is there, and to write to; the result is the same to the bit.

    Returns: a Fit of independent draws as chain 1, with trace `elbo`, up to a constant; its state keeps lambda,
        `loc`, in unconstrained coordinates. `rescaled(fit)` is the network with every unit there, at its mean.
    Raises: Unsupported for a model without a network, and for one that has no units to leave out.
    Source: Gal and Ghahramani (2016), ICML, equations 6 and 7.
    """
    began = time.perf_counter()
    if not 0 <= rate < 1:
        raise ValueError(f"rate, the share of units left out, lies in [0, 1); it is {rate}")
    if not isinstance(model, HasNetwork):
        raise Unsupported(f"{getattr(model, '__name__', type(model).__name__)} has no network whose units could drop")
    with fresh(model, args, kwargs, seed=seed) as own:
        target = Minibatches.of(
            own, args, kwargs, chains=num_particles, batch_size=batch_size, jacobian=False, calls=num_steps,
            compile=compile,
        )  # fmt: skip
        generator = torch.Generator(target.density.device).manual_seed(seed)
        loc = from_prior(target.density, 1, generator)[0].requires_grad_()
        units = _units(own, target.density, inputs)
        rows = args[0].rows if batch_size is not None else 0
        saved = None
        if checkpoint is not None:
            run = {"method": "dropout", "seed": seed, "lr": lr, "rate": rate, "batch_size": batch_size}
            saved = Checkpoint(Path(checkpoint), {**run, "inputs": inputs})
        training = Training(
            num_steps, lr, Plateau(tol, patience), rows, batch_size, seed=seed, checkpoint=saved,
            progress_bar=progress_bar,
        )  # fmt: skip
        training.run(lambda index: _loss(target, index, loc, masks(units, rate, num_particles)), lambda: {"loc": loc})
        assert training.plateau is not None
        lam = loc.detach()
        x = lam * masks(units, rate, num_samples)
        draws = {name: value[None] for name, value in target.density.constrain(x).items()}
        info = {"seed": seed, "converged": training.plateau.converged, "message": training.plateau.message()}
        info |= {"num_steps": training.step, "lr": lr, "batch_size": batch_size, "rate": rate, "inputs": inputs}
        info |= {"executor": target.executor, "seconds": time.perf_counter() - began}
        trace = {"elbo": torch.tensor(training.objective)}
        return Fit(own, args, kwargs, "dropout", draws, trace, {}, info, state={"loc": lam, "units": units})


def rescaled(fit: Fit) -> Fit:
    """Return the same fit with one draw, E_q of every weight: a unit left out with probability p counts 1 - p."""
    keep = torch.where(fit.state["units"] >= 0, 1.0 - fit.info["rate"], 1.0).to(fit.state["loc"])
    with fresh(fit.model, fit.args, fit.kwargs) as own:
        density = Minibatches.of(own, fit.args, fit.kwargs, chains=1, batch_size=None, compile=False).density
        draws = {name: value[None] for name, value in density.constrain((keep * fit.state["loc"])[None]).items()}
    return replace(fit, draws=draws, stats={})


def masks(units: Tensor, rate: float, number: int) -> Tensor:
    """Return masks of the weights, (number, dim), of zeros and ones: each of the units, (dim,), dropped alike."""
    there = (torch.rand(number, int(units.max()) + 2, device=units.device) >= rate).to(torch.get_default_dtype())
    there[:, 0] = 1.0  # what belongs to no unit is always there
    return there[:, units + 1]


def _units(model: HasNetwork, density: Density, inputs: bool) -> Tensor:
    """The unit that each coordinate comes from, (dim,); -1 where nothing is to be dropped."""
    units, number = torch.full((density.dim,), -1, device=density.device), 0
    matrices = [name for name, value in model.module.named_parameters() if value.ndim > 1]
    for name in matrices if inputs else matrices[1:]:
        site = next(site for site in density.layout.sites if site.name == name)
        width = site.shape[1]
        place = torch.arange(width, device=density.device).reshape(1, width, *(1 for _ in site.shape[2:]))
        units[site.start : site.stop] = number + place.expand(site.shape).flatten()
        number += width
    if not number:
        raise Unsupported("the network has no hidden units to drop; say inputs=True to drop its inputs")
    return units


def _loss(target: Minibatches, index: Tensor | None, loc: Tensor, mask: Tensor) -> Tensor:
    """Minus the mean log density over masks, (), with its gradient in lambda."""
    log_prob, grad = target.local(index, loc.detach() * mask)
    return with_gradient(loc, -log_prob.mean(), -(grad * mask).mean(0))
