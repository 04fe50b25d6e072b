"""Hierarchical variational autoencoder: causes of causes, each layer of latents made from the one above."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppmodels.autoencoders._likelihood import FAMILIES, Decoder, Encoder, Family
from ppmodels.autoencoders._networks import check_fields, check_rows, decoder_network, encoder_network
from ppmodels.base import Data, dims
from ppmodels.nn.mlp import mlp


@dataclass(frozen=True)
class HierarchicalVAE:
    r"""A chain of latent layers from the top down to the data, and a guess of every layer from the data.

    .. math:: z_L \sim N(0, I),\; z_l \mid z_{l+1} \sim N(m_l(z_{l+1}), \mathrm{diag}\, s_l(z_{l+1})^2),\;
        x \mid z_1 \sim p(x; f(z_1)), \quad q(z \mid x) = \prod_l N(\mu_l(x), \mathrm{diag}\, \sigma_l(x)^2)

    The ELBO is E log p(x | z_1) less one divergence a layer. With depth 1 it is the variational autoencoder, draw
    for draw.

    Latents:  z_t (N, K) for t = 1..L, no unit; z_1 is next to the data.
    Learned:  decoder, z_1 to the law of x; steps, z_{l+1} to that of z_l; encoders, x to that of z_l.
    Observed: x (N, D), as the likelihood says.
    Source:   Sönderby et al. (2016), arXiv:1602.02282, equations 1 to 3.
    """

    dim: int = 6
    latents: int = 2
    depth: int = 2
    likelihood: Family = "gaussian"
    noise: float = 0.0  # sd of a Gaussian x; 0 learns it
    network: str = "mlp"  # or linear, or convolutional
    hidden: int = 32  # units of a layer, or channels of the first
    layers: int = 1
    shape: tuple[int, ...] = ()  # channels, height, width of images, for a convolutional network
    observed: ClassVar[tuple[str, ...]] = ("x",)

    def __post_init__(self) -> None:
        check_fields(self, FAMILIES)
        if self.depth < 1:
            raise ValueError(f"depth must be at least 1; it is {self.depth}")

    @cached_property
    def encoders(self) -> nn.ModuleList:
        """From x (..., D) to q(z_l | x), for l = 1..L."""
        return nn.ModuleList(
            Encoder(encoder_network(self, self.dim, 2 * self.latents)) for _ in range(self.depth)
        )  # fmt: skip

    @cached_property
    def decoder(self) -> Decoder:
        """From z_1 (..., K) to p(x | z_1)."""
        return Decoder(decoder_network(self, self.latents, self.dim), self.likelihood, self.noise)

    @cached_property
    def steps(self) -> nn.ModuleList:
        """From z_{l+1} (..., K) to p(z_l | z_{l+1}), for l = 1..L - 1."""
        sizes = [self.latents, self.hidden, 2 * self.latents]
        return nn.ModuleList(Encoder(mlp(sizes)) for _ in range(self.depth - 1))

    def check(self, data: Data) -> None:
        """Raise ValueError where a row cannot be one of this model's."""
        check_rows(data.observed["x"], self.dim, self.likelihood)

    def inputs(self, rows: int) -> dict[str, Tensor]:
        return {}

    def model(self, data: Data) -> None:
        pyro.module("decoder", self.decoder)
        pyro.module("steps", self.steps)
        with data.plate():
            law = dist.Normal(torch.zeros(self.latents), 1.0).to_event(1)
            for level in range(self.depth, 1, -1):
                z = pyro.sample(f"z_{level}", law, infer=dims("latent"))
                law = self.steps[level - 2](z)
            z = pyro.sample("z_1", law, infer=dims("latent"))
            pyro.sample("x", self.decoder(z), infer=dims("feature"))

    def guide(self, data: Data) -> None:
        pyro.module("encoders", self.encoders)
        with data.plate():
            for level in range(self.depth, 0, -1):
                pyro.sample(f"z_{level}", self.encoders[level - 1](data.observed["x"]), infer=dims("latent"))
