"""Encoders and decoders by name, and what data they can take."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import Categorical
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ppmodels.nn.image_networks import ConvolutionalDecoder, ConvolutionalEncoder
from ppmodels.nn.mlp import mlp

NETWORKS = ("linear", "mlp", "convolutional")


def encoder_network(model: Any, inside: int, out: int) -> nn.Module:
    """Return a module (..., inside) -> (..., out) of the kind that the model's fields ask for.

    A convolutional one looks at the first C H W features as an image; there are no others.
    """
    if model.network == "convolutional":
        return ConvolutionalEncoder(model.shape, out, model.hidden, model.layers)
    return mlp([inside, *_between(model), out])


def decoder_network(model: Any, inside: int, out: int) -> nn.Module:
    """Return a module (..., inside) -> (..., out) of the kind that the model's fields ask for."""
    if model.network == "convolutional":
        return ConvolutionalDecoder(model.shape, inside, model.hidden, model.layers)
    return mlp([inside, *_between(model), out])


def _between(model: Any) -> list[int]:
    return [] if model.network == "linear" else [model.hidden] * model.layers


def check_fields(model: Any, likelihoods: Sequence[str]) -> None:
    """Raise for fields that cannot be, in one line."""
    sizes = [name for name in ("dim", "latents", "hidden", "layers", "classes") if getattr(model, name, 1) < 1]
    if sizes:
        raise ValueError(f"{sizes[0]} must be at least 1; it is {getattr(model, sizes[0])}")
    if model.likelihood not in likelihoods:
        raise ValueError(f"no likelihood {model.likelihood!r}; there are: {', '.join(likelihoods)}")
    if model.network not in NETWORKS:
        raise ValueError(f"no network {model.network!r}; there are: {', '.join(NETWORKS)}")
    if model.network == "convolutional" and math.prod(model.shape or (0,)) != model.dim:
        raise ValueError(
            f"convolutions need a shape (channels, height, width) of {model.dim} pixels; got {model.shape}"
        )
    if not 0 <= model.noise < math.inf:
        raise ValueError(f"noise must be positive, or 0 to learn it; it is {model.noise}")


def check_rows(x: Tensor, dim: int, likelihood: str) -> None:
    """Raise for rows that the likelihood gives no density to, naming the first bad row and column."""
    if x.ndim != 2 or x.shape[1] != dim:
        raise ValueError(f"x must be (rows, {dim}), images laid out as rows; it is {tuple(x.shape)}")
    if not len(x):
        raise ValueError("x has no rows")
    inside, wanted = {
        "gaussian": (torch.isfinite(x), "a finite number"),
        "bernoulli": ((x == 0) | (x == 1), "0 or 1; make it so, or say likelihood='continuous_bernoulli'"),
        "continuous_bernoulli": ((x >= 0) & (x <= 1), "between 0 and 1; divide by the largest value"),
        "poisson": ((x >= 0) & (x == x.floor()) & torch.isfinite(x), "a count"),
    }[likelihood]
    if not bool(inside.all()):
        row, column = (int(i) for i in (~inside).nonzero()[0])
        raise ValueError(f"x is {float(x[row, column]):g} in row {row}, column {column}; it must be {wanted}")


def check_classes(labels: Tensor, classes: int, unknown: bool) -> None:
    """Raise for labels that are no classes, and for classes that no row has."""
    wrong = (labels != labels.floor()) | (labels < (-1 if unknown else 0)) | (labels >= classes)
    if bool(wrong.any()):
        row, or_none = int(wrong.nonzero()[0]), ", or -1 for none" if unknown else ""
        raise ValueError(f"the class of row {row} is {float(labels[row]):g}; classes are 0 to {classes - 1}{or_none}")
    empty = set(range(classes)) - set(labels.tolist())
    if empty:
        raise ValueError(f"class {min(empty)} has no row; number the classes that there are, from 0")


def beside(values: Tensor, label: Tensor, classes: int) -> Tensor:
    """Return values (..., D) and class (...) side by side, (..., D + C); their batches are broadcast."""
    told = one_hot(label.long(), classes).to(values)
    batch = torch.broadcast_shapes(values.shape[:-1], label.shape)
    return torch.cat([values.expand(*batch, -1), told.expand(*batch, -1)], -1)


def class_law(logits: Tensor, label: Tensor) -> Categorical:
    """The law of y by row: logits (N or 1, C), or where a label (N,) was told e^-100 for all but that one."""
    told = torch.where(torch.arange(logits.shape[-1], device=label.device) == label[:, None], 0.0, -100.0).to(logits)
    return Categorical(logits=torch.where(label[:, None] >= 0, told, logits))
