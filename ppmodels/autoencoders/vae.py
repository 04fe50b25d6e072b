"""Variational autoencoder: a few hidden causes of every row, and a network that reads them off."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppmodels.autoencoders._likelihood import FAMILIES, Decoder, Encoder, Family
from ppmodels.autoencoders._networks import check_fields, check_rows, decoder_network, encoder_network
from ppmodels.base import Data, dims


@dataclass(frozen=True)
class VariationalAutoencoder:
    r"""Rows made from independent normals by a network, and a network that guesses the normals of a row.

    .. math:: z_n \sim N(0, I),\; x_n \mid z_n \sim p(x; f_\theta(z_n)), \quad
        q(z_n \mid x_n) = N(\mu_\phi(x_n), \mathrm{diag}\, \sigma_\phi(x_n)^2)

    With `network="linear"` and a Gaussian likelihood the best fit is probabilistic PCA. The objective is the ELBO;
    `inference.svi` has the beta, capacity, free-bits and importance-weighted ones as its `loss`.

    Latents:  z (N, K), no unit.
    Learned:  decoder, z to the law of x; encoder, x to that of z.
    Observed: x (N, D): any number, 0 or 1, between 0 and 1, or a count, as the likelihood says.
    Source:   Kingma and Welling (2014), arXiv:1312.6114, equations 3 and 10.
    """

    dim: int = 6
    latents: int = 2
    likelihood: Family = "gaussian"
    noise: float = 0.0  # sd of a Gaussian x; 0 learns it
    network: str = "mlp"  # or linear, or convolutional
    hidden: int = 32  # units of a layer, or channels of the first
    layers: int = 1
    shape: tuple[int, ...] = ()  # channels, height, width of images, for a convolutional network
    modules: Any = None  # (encoder, decoder), any torch modules D -> 2 K and K -> D, in place of a network by name
    observed: ClassVar[tuple[str, ...]] = ("x",)

    def __post_init__(self) -> None:
        check_fields(self, FAMILIES)

    @cached_property
    def encoder(self) -> Encoder:
        """From x (..., D) to q(z | x)."""
        return Encoder(self.modules[0] if self.modules else encoder_network(self, self.dim, 2 * self.latents))

    @cached_property
    def decoder(self) -> Decoder:
        """From z (..., K) to p(x | z)."""
        own = self.modules[1] if self.modules else decoder_network(self, self.latents, self.dim)
        return Decoder(own, self.likelihood, self.noise)

    def check(self, data: Data) -> None:
        """Raise ValueError where a row cannot be one of this model's."""
        check_rows(data.observed["x"], self.dim, self.likelihood)

    def inputs(self, rows: int) -> dict[str, Tensor]:
        return {}

    def model(self, data: Data) -> None:
        pyro.module("decoder", self.decoder)
        with data.plate():
            z = pyro.sample("z", dist.Normal(torch.zeros(self.latents), 1.0).to_event(1), infer=dims("latent"))
            pyro.sample("x", self.decoder(z), infer=dims("feature"))

    def guide(self, data: Data) -> None:
        pyro.module("encoder", self.encoder)
        with data.plate():
            pyro.sample("z", self.encoder(data.observed["x"]), infer=dims("latent"))

    def encode(self, x: Tensor) -> Tensor:
        """Return the mean of q(z | x), (..., K)."""
        with torch.no_grad():
            return self.encoder(x).mean

    def decode(self, z: Tensor) -> Tensor:
        """Return the mean of p(x | z), (..., D)."""
        with torch.no_grad():
            return self.decoder(z).mean
