"""Sequence regression: what a network has read of a sequence says what comes of it, at every time or at the end."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import pyro
import torch
from torch import Tensor, nn

from ppmodels.base import Data, dims
from ppmodels.sequence import _network
from ppmodels.sequence._readout import Emission, check_given, check_values, sample_readout


@dataclass(frozen=True)
class SequenceRegression:
    r"""Classes, numbers or counts driven by a sequence of inputs, which a state space (S4) or a transformer reads.

    .. math:: W_{kj} \sim N(0, s^2 / H),\; b_k \sim N(0, s^2),\; f_t = W\, network(x_{\le t}) + b,\;
        y_t \sim N(f_t, \sigma^2),\; Cat(softmax f_t) \;\text{or}\; Poisson(e^{f_t})

    with s = `scale` and log sigma ~ N(-1, 1) unless `noise` is known. With `pool` there is one y a sequence, from the
    mean over time or from the last. `svi` learns the network along with the last layer; `fixed_at` then leaves the
    last layer as all that is latent, for `laplace`, `mcmc` and every other back end.

    Latents:  weight (K, H), bias (K,); of gaussian values noise (), unit of y.
    Learned:  network, from x to features (N, T, H).
    Given:    x (N, T, I), standardised.
    Observed: y (N, T, K); classes below K are (N, T); with `pool` there is no T. Standardise numbers.
    Source:   Gu, Goel and Ré (2022), arXiv:2111.00396, section 4; last layer: Kristiadi, Hein and Hennig (2020),
              arXiv:2002.10118.
    """

    features: int = 2  # I
    dim: int = 1  # K, columns of y, or classes that there are
    length: int = 5  # T of inputs that are made up; those of data may be of any length
    emission: Emission = "gaussian"
    pool: _network.Pool = "none"
    kind: _network.Kind = "s4d"
    width: int = 8  # H
    layers: int = 1
    modes: int = 4  # of a state space, a channel: pairs of conjugate states
    heads: int = 2  # of a transformer
    scale: float = 1.0
    noise: float | None = None  # known sd of gaussian values
    network: nn.Module | None = field(default=None, repr=False)  # instead of one by `kind`: (B, T, I) -> (B, T, H)
    fixed: bool = False  # that network learns no more
    observed: ClassVar[tuple[str, ...]] = ("y",)

    __post_init__ = _network.check_fields

    @cached_property
    def body(self) -> nn.Module:
        """The network."""
        return _network.network(self, self.features, tokens=False)

    def check(self, data: Data) -> None:
        """Raise ValueError where a row cannot be one of this model's."""
        check_given(data.given["x"], self.features)
        times = data.given["x"].shape[1:2] if self.pool == "none" else ()
        check_values(self, data.observed["y"], times)

    def inputs(self, rows: int) -> dict[str, Tensor]:
        return {"x": torch.randn(rows, self.length, self.features)}

    def model(self, data: Data) -> None:
        if not self.fixed:
            pyro.module("network", self.body)
        readout = sample_readout(self, self.width)
        law = readout.law(self.pooled(data.given["x"]))  # (N, T) or (N,)
        axes = (["time"] if self.pool == "none" else []) + (["output"] if law.event_dim else [])
        with data.plate():
            pyro.sample("y", law.to_event(self.pool == "none"), infer=dims(*axes))

    def pooled(self, x: Tensor) -> Tensor:
        """Return the features that y is made of, (N, T, H), or (N, H) with `pool`."""
        features = _network.read(self.body, x)
        return {"none": features, "mean": features.mean(1), "last": features[:, -1]}[self.pool]

    def fixed_at(self, body: nn.Module) -> "SequenceRegression":
        """Return the model of the last layer alone, over a network that has learned, such as `fit.model.body`."""
        return replace(self, network=_network.learned(body), fixed=True)
