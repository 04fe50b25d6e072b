"""The network of a sequence model, by name; and what its fields cannot be."""

import copy
import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ppmodels.nn.ssm_stack import SSMStack
from ppmodels.nn.transformer import CausalTransformer
from ppmodels.sequence._readout import Emission

Kind = Literal["s4d", "s4", "transformer"]
Pool = Literal["none", "mean", "last"]


def check_fields(model: Any) -> None:
    """Raise for fields that cannot be, in one line."""
    for name in ("dim", "features", "length", "width", "layers", "modes", "heads"):
        if getattr(model, name, 1) < 1:
            raise ValueError(f"{name} must be at least 1; it is {getattr(model, name)}")
    for name, there in (("kind", Kind), ("emission", Emission), ("pool", Pool)):
        if getattr(model, name, get_args(there)[0]) not in get_args(there):
            raise ValueError(f"no {name} {getattr(model, name)!r}; there are: {', '.join(get_args(there))}")
    if model.kind == "transformer" and model.width % (2 * model.heads):
        raise ValueError(f"heads of even width must share it: {model.width} does not divide by 2 x {model.heads}")
    if not 0 < model.scale < math.inf or (model.noise is not None and not 0 < model.noise < math.inf):
        raise ValueError(f"scale and noise must be positive and finite; they are {model.scale}, {model.noise}")
    if model.fixed and model.network is None:
        raise ValueError("what is fixed must be there: say network=, one that has learned")


def network(model: Any, inputs: int, tokens: bool) -> nn.Module:
    """Return the model's own network, or one of its kind: (B, T, I), or tokens (B, T), to features (B, T, W)."""
    if model.network is not None:
        return model.network
    if model.kind == "transformer":
        return CausalTransformer(inputs, model.width, model.layers, model.heads, tokens=tokens)
    return SSMStack(inputs, None, model.width, model.layers, tokens=tokens, system=model.kind, states=2 * model.modes)


def learned(body: nn.Module) -> nn.Module:
    """Return a copy that learns no more."""
    return copy.deepcopy(body).eval().requires_grad_(False)


def read(body: nn.Module, x: Tensor) -> Tensor:
    """Return the features (B, T, W) of inputs (B, T, I) or tokens (B, T), in the network's own precision."""
    return body(suited(body, x))


def suited(body: nn.Module, x: Tensor) -> Tensor:
    """Return inputs as the network takes them: numbers in the dtype of its weights, tokens as whole numbers."""
    if not x.is_floating_point():
        return x
    weights = (p.dtype for p in body.parameters() if p.is_floating_point())
    return x.to(next(weights, torch.get_default_dtype()))
