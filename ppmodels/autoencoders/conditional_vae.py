"""Conditional variational autoencoder: what is left to vary in a row once its class is told."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppmodels.autoencoders import _networks
from ppmodels.autoencoders._likelihood import FAMILIES, Decoder, Encoder, Family
from ppmodels.base import Data, dims


@dataclass(frozen=True)
class ConditionalVAE:
    r"""A variational autoencoder whose every network is told the class of the row.

    .. math:: z_n \sim N(0, I),\; x_n \mid z_n, y_n \sim p(x; f(z_n, y_n)), \quad
        q(z_n \mid x_n, y_n) = N(\mu(x_n, y_n), \mathrm{diag}\, \sigma(x_n, y_n)^2)

    Latents:  z (N, K), no unit: what the class does not tell, such as the style of a handwriting.
    Learned:  decoder, (z, y) to the law of x; encoder, (x, y) to that of z.
    Given:    y (N,), whole numbers 0..C-1.
    Observed: x (N, D), as the likelihood says.
    Source:   Sohn, Lee and Yan (2015), Learning structured output representation, equation 4.
    """

    dim: int = 6
    latents: int = 2
    classes: int = 3
    likelihood: Family = "gaussian"
    noise: float = 0.0  # sd of a Gaussian x; 0 learns it
    network: str = "mlp"  # or linear
    hidden: int = 32
    layers: int = 1
    observed: ClassVar[tuple[str, ...]] = ("x",)

    def __post_init__(self) -> None:
        if self.network == "convolutional":
            raise ValueError("a class told beside an image needs network='mlp' or 'linear'")
        _networks.check_fields(self, FAMILIES)

    @cached_property
    def encoder(self) -> Encoder:
        """From (x, y) (..., D + C) to q(z | x, y)."""
        return Encoder(_networks.encoder_network(self, self.dim + self.classes, 2 * self.latents))

    @cached_property
    def decoder(self) -> Decoder:
        """From (z, y) (..., K + C) to p(x | z, y)."""
        return Decoder(
            _networks.decoder_network(self, self.latents + self.classes, self.dim), self.likelihood, self.noise
        )

    def check(self, data: Data) -> None:
        """Raise ValueError where a row cannot be one of this model's, or a class has none."""
        _networks.check_rows(data.observed["x"], self.dim, self.likelihood)
        _networks.check_classes(data.given["y"], self.classes, unknown=False)

    def inputs(self, rows: int) -> dict[str, Tensor]:
        return {"y": torch.arange(rows) % self.classes}

    def model(self, data: Data) -> None:
        pyro.module("decoder", self.decoder)
        with data.plate():
            z = pyro.sample("z", dist.Normal(torch.zeros(self.latents), 1.0).to_event(1), infer=dims("latent"))
            pyro.sample("x", self.decoder(_networks.beside(z, data.given["y"], self.classes)), infer=dims("feature"))

    def guide(self, data: Data) -> None:
        pyro.module("encoder", self.encoder)
        with data.plate():
            pyro.sample(
                "z",
                self.encoder(_networks.beside(data.observed["x"], data.given["y"], self.classes)),
                infer=dims("latent"),
            )

    def encode(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the mean of q(z | x, y), (..., K)."""
        with torch.no_grad():
            return self.encoder(_networks.beside(x, y, self.classes)).mean

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        """Return the mean of p(x | z, y), (..., D)."""
        with torch.no_grad():
            return self.decoder(_networks.beside(z, y, self.classes)).mean
