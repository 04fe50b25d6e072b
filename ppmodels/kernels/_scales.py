"""What models of a Gaussian process share: checks of their fields, and scales drawn from their prior."""

import math
from collections.abc import Callable
from typing import Any, get_args

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppmodels.base import Data, Theta
from ppmodels.kernels._marginal import Family
from ppmodels.kernels.functions import RBF, Kernel, Matern


def check_fields(model: Any) -> None:
    """Raise a ValueError that names a field and what it may be."""
    for name in ("dim", "outputs"):
        if getattr(model, name, 1) < 1:
            raise ValueError(f"{name} must be at least 1; it is {getattr(model, name)}")
    if model.family not in get_args(Family):
        raise ValueError(f"family must be one of {', '.join(get_args(Family))}; it is {model.family!r}")
    for name in ("lengthscale", "amplitude", "noise", "spread", "jitter", "concentration"):
        if hasattr(model, name) and not 0 < getattr(model, name) < math.inf:
            raise ValueError(f"{name} must be positive and finite; it is {getattr(model, name)}")


def sample_scales(model: Any, data: Data) -> tuple[Tensor, Tensor, Tensor]:
    """Return x (N, D), and lengthscale (D,) and amplitude () from their prior."""
    x, lengthscale = sample_lengthscale(model, data)
    return x, lengthscale, pyro.sample("amplitude", log_normal(model.amplitude, model.spread))


def sample_lengthscale(model: Any, data: Data) -> tuple[Tensor, Tensor]:
    """Return x (N, D), and lengthscale (D,) from its prior."""
    x = data.given["x"]
    if x.shape[1:] != (model.dim,):
        raise ValueError(f"x must be (rows, {model.dim}); it is {tuple(x.shape)}")
    if data.index is not None:
        raise ValueError("the rows of a Gaussian process depend on one another; it takes no minibatches")
    with pyro.plate("columns", model.dim, dim=-1):
        lengthscale = pyro.sample("lengthscale", log_normal(model.lengthscale, model.spread))
    return x, lengthscale


def log_normal(median: float, spread: float) -> dist.LogNormal:
    """Return the law of a scale; spread is the sd of its logarithm."""
    return dist.LogNormal(torch.tensor(math.log(median)), spread)


def over_draws(
    moments: Callable[[Theta], tuple[Tensor, Tensor]], draws: Theta, shape: torch.Size
) -> tuple[Tensor, Tensor]:
    """Return a mean and an sd at each draw of the latents, (*shape, *site) each, (*shape, ...)."""
    flat = {name: draw.reshape(-1, *draw.shape[len(shape) :]) for name, draw in draws.items()}
    found = [moments({name: draw[i] for name, draw in flat.items()}) for i in range(shape.numel())]
    mean, sd = (torch.stack(part) for part in zip(*found, strict=True))
    return mean.reshape(*shape, *mean.shape[1:]), sd.reshape(*shape, *sd.shape[1:])


def kernel_of(family: Family, lengthscale: Tensor) -> Kernel:
    """Return the family's kernel function of a lengthscale a column, (D,)."""
    widths = tuple(lengthscale.reshape(-1).tolist())
    return (
        RBF(widths) if family == "rbf" else Matern({"matern12": 0.5, "matern32": 1.5, "matern52": 2.5}[family], widths)
    )
