"""The network of a Bayesian neural network: what is built unless the user brings one, and a prior for each layer."""

import math
from collections import OrderedDict
from functools import lru_cache
from typing import Any, Literal

import pyro.distributions as dist
import torch
from pyro.distributions import Distribution
from torch import nn

Activation = Literal["tanh", "relu", "silu", "gelu"]
Prior = Literal["normal", "laplace", "student"]

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}
DEGREES = 3.0  # of freedom of Student's prior: heavy tails with a variance


@lru_cache
def perceptron(features: int, hidden: tuple[int, ...], outputs: int, activation: Activation) -> nn.Module:
    """Return layers `hidden` (or `hidden_1`, ...) and `output`, without values: every call brings its own weights."""
    layers, width = OrderedDict[str, nn.Module](), features
    for i, units in enumerate(hidden, 1):
        number = f"_{i}" if len(hidden) > 1 else ""
        layers[f"hidden{number}"] = nn.Linear(width, units, device="meta")
        layers[f"activation{number}"] = ACTIVATIONS[activation]()
        width = units
    layers["output"] = nn.Linear(width, outputs, device="meta")
    return nn.Sequential(layers)


def layers_of(module: nn.Module) -> list[str]:
    """Return the names of the layers that have parameters, in order."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name, _ in module.named_parameters()))


def priors(module: nn.Module, prior: Prior, scale: tuple[float, ...]) -> dict[str, Any]:
    """Return a prior for every parameter by name.

    A weight that sums over F inputs has sd scale / sqrt(F), so that outputs keep their size whatever the width;
    biases have sd scale, and gains of normalisations are around 1.
    """
    layers = layers_of(module)
    sd = dict(zip(layers, scale * len(layers) if len(scale) == 1 else scale, strict=True))
    return {name: _prior(name, value, prior, sd[name.rpartition(".")[0]]) for name, value in module.named_parameters()}


def refuse(module: nn.Module, scale: tuple[float, ...]) -> None:
    """Raise where a network cannot have random weights, or where scales do not fit its layers."""
    layers = layers_of(module)
    if not layers:
        raise ValueError(f"{type(module).__name__} has no parameters, so there is nothing to infer")
    if len(scale) not in (1, len(layers)):
        raise ValueError(f"scale is one number, or one for each of {', '.join(layers)}; got {len(scale)}")
    for name, layer in module.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise ValueError(f"layer {name!r} normalises over rows, so rows are not independent; use LayerNorm")
        if isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0:
            raise ValueError(f"layer {name!r} drops at random; leave it out, and fit with method dropout instead")


def _prior(name: str, value: torch.Tensor, prior: Prior, scale: float) -> Distribution:
    fan_in = value[0].numel() if value.ndim > 1 else 1
    gain = value.ndim == 1 and name.endswith("weight")
    sd = scale / math.sqrt(fan_in)
    loc = torch.full(value.shape, float(gain), device=torch.get_default_device())
    law: Any = {
        "normal": lambda: dist.Normal(loc, sd),
        "laplace": lambda: dist.Laplace(loc, sd / math.sqrt(2.0)),
        "student": lambda: dist.StudentT(DEGREES, loc, sd * math.sqrt((DEGREES - 2) / DEGREES)),
    }[prior]()
    return law.to_event(value.ndim)
