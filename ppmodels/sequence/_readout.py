"""The last layer of a sequence model: what features say of a value, with uncertain weights."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppmodels.base import dims

Emission = Literal["categorical", "gaussian", "poisson"]


@dataclass(frozen=True)
class Readout:
    """W features + b are logits, means or log rates.

    weight: (K, W). bias: (K,). noise: sd of gaussian values, ().
    """

    emission: str
    weight: Tensor
    bias: Tensor
    noise: Tensor | float | None = None

    def outputs(self, features: Tensor) -> Tensor:
        """Features (..., W) to logits, means or log rates, (..., K)."""
        wanted, there = self.weight.shape[-1], features.shape[-1]
        if wanted != there:
            raise ValueError(f"the network gives {there} features, the model has width {wanted}; say width={there}")
        return features.to(self.weight.dtype) @ self.weight.mT + self.bias

    def law(self, features: Tensor) -> dist.TorchDistribution:
        """Features (..., W) to the law of a value: a token, (), or K numbers or counts, (K,)."""
        f = self.outputs(features)
        if self.emission == "categorical":
            return dist.Categorical(logits=f)
        if self.emission == "poisson":
            return dist.Poisson(f.exp()).to_event(1)
        assert self.noise is not None
        return dist.Normal(f, self.noise).to_event(1)


def sample_readout(model: Any, width: int) -> Readout:
    """Sample the last layer: weights ~ N(0, scale^2 / W), so that outputs have sd `scale`, whatever the width."""
    zeros = torch.zeros(model.dim, width)
    law = dist.Normal(zeros, model.scale / math.sqrt(width)).to_event(2)
    weight = pyro.sample("weight", law, infer=dims("output", "unit"))
    bias = pyro.sample("bias", dist.Normal(zeros[:, 0], model.scale).to_event(1), infer=dims("output"))
    noise = model.noise
    if model.emission == "gaussian" and noise is None:
        noise = pyro.sample("noise", dist.LogNormal(zeros.new_tensor(-1.0), 1.0))
    return Readout(model.emission, weight, bias, noise)


def readout_of(model: Any, theta: Any) -> Readout:
    """Return the last layer at sites by name, one draw or a mean."""
    return Readout(model.emission, theta["weight"], theta["bias"], theta.get("noise", model.noise))


def check_values(model: Any, y: Tensor, times: tuple[int, ...]) -> None:
    """Raise for values that the emission gives no probability to, naming the first bad row and place.

    times: (T,), or () where there is one value a sequence.
    """
    names, shape = ("time",) * len(times), times
    if model.emission != "categorical":
        names, shape = (*names, "column"), (*times, model.dim)
    if y.shape[1:] != shape:
        raise ValueError(f"y must be ({', '.join(['rows', *map(str, shape)])}); it is {tuple(y.shape)}")
    if model.emission == "gaussian":
        inside, wanted = y.isfinite(), "a finite number"
    elif model.emission == "poisson":
        inside, wanted = y.isfinite() & (y >= 0) & (y == y.floor()), "a count"
    else:
        inside, wanted = (y >= 0) & (y < model.dim) & (y == y.floor()), f"a whole number from 0 to {model.dim - 1}"
    if not bool(inside.all()):
        row, *place = (~inside).nonzero()[0].tolist()
        where = "".join(f", {name} {i}" for name, i in zip(names, place, strict=True))
        raise ValueError(f"y is {float(y[(row, *place)]):g} in row {row}{where}; it must be {wanted}")


def check_given(x: Tensor, features: int) -> None:
    """Raise for inputs that are no finite numbers, naming the first bad row and place."""
    if x.ndim != 3 or x.shape[1] == 0 or x.shape[2] != features:
        raise ValueError(f"x must be (rows, time, {features}); it is {tuple(x.shape)}")
    if not bool(x.isfinite().all()):
        row, time, column = (~x.isfinite()).nonzero()[0].tolist()
        value = float(x[row, time, column])
        raise ValueError(f"x is {value} in row {row}, time {time}, column {column}; drop or fill such rows")
