"""Semi-supervised variational autoencoder: a few rows come with their class, and the others' is summed out."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppmodels.autoencoders import _networks as nets
from ppmodels.autoencoders._likelihood import FAMILIES, Decoder, Encoder, Family
from ppmodels.base import Data, dims


@dataclass(frozen=True)
class SemiSupervisedVAE:
    r"""A class and a style make every row; where the class is not told it is a latent, enumerated.

    .. math:: y_n \sim Cat(1/C),\; z_n \sim N(0, I),\; x_n \sim p(x; f(z_n, y_n)), \quad
        q(y_n, z_n \mid x_n) = Cat(y_n; \pi(x_n))\, N(z_n; \mu(x_n, y_n), \mathrm{diag}\, \sigma(x_n, y_n)^2)

    A label that is told takes the place of both laws of y. The classifier learns from it by the term `weight`
    log pi(label) in the guide, which a fit's ELBO holds; without it few labels are lost among the rows.

    Latents:  z (N, K), no unit; y (N,), the class.
    Learned:  decoder, (z, y) to the law of x; encoder, (x, y) to that of z; classifier, x to that of y.
    Given:    label (N,), whole numbers 0..C-1, or -1 where it is not known.
    Observed: x (N, D), as the likelihood says.
    Source:   Kingma et al. (2014), arXiv:1406.5298, equations 6 to 9.
    """

    dim: int = 6
    latents: int = 2
    classes: int = 3
    likelihood: Family = "gaussian"
    noise: float = 0.0  # sd of a Gaussian x; 0 learns it
    network: str = "mlp"  # or linear
    hidden: int = 32
    layers: int = 1
    weight: float = 50.0  # of the classifier's own term
    observed: ClassVar[tuple[str, ...]] = ("x",)

    def __post_init__(self) -> None:
        if self.network == "convolutional" or not 0 <= self.weight < float("inf"):
            raise ValueError("network must be mlp or linear, and weight at least 0 and finite")
        nets.check_fields(self, FAMILIES)

    @cached_property
    def networks(self) -> nn.ModuleDict:
        """The classifier and the encoder: all that reads x."""
        encoder = Encoder(nets.encoder_network(self, self.dim + self.classes, 2 * self.latents))
        return nn.ModuleDict({"encoder": encoder, "classifier": nets.encoder_network(self, self.dim, self.classes)})

    @cached_property
    def decoder(self) -> Decoder:
        """From (z, y) (..., K + C) to p(x | z, y)."""
        return Decoder(nets.decoder_network(self, self.latents + self.classes, self.dim), self.likelihood, self.noise)

    def check(self, data: Data) -> None:
        nets.check_rows(data.observed["x"], self.dim, self.likelihood)
        nets.check_classes(data.given["label"], self.classes, unknown=True)

    def inputs(self, rows: int) -> dict[str, Tensor]:
        return {"label": torch.arange(rows) % (self.classes + 1) - 1}

    def model(self, data: Data) -> None:
        pyro.module("decoder", self.decoder)
        with data.plate():
            z = pyro.sample("z", dist.Normal(torch.zeros(self.latents), 1.0).to_event(1), infer=dims("latent"))
            y = pyro.sample(
                "y", nets.class_law(z.new_zeros(self.classes), data.given["label"]), infer={"enumerate": "parallel"}
            )
            pyro.sample("x", self.decoder(nets.beside(z, y, self.classes)), infer=dims("feature"))

    def guide(self, data: Data) -> None:
        x, label = data.observed["x"], data.given["label"]
        pyro.module("networks", self.networks)
        logits = self.networks["classifier"](x)  # (N, C)
        with data.plate():
            right = dist.Categorical(logits=logits).log_prob(label.clamp(min=0)) * (label >= 0)
            pyro.factor("classified", -self.weight * right, has_rsample=True)
            y = pyro.sample("y", nets.class_law(logits, label), infer={"enumerate": "parallel"})
            pyro.sample("z", self.networks["encoder"](nets.beside(x, y, self.classes)), infer=dims("latent"))

    def classify(self, x: Tensor) -> Tensor:
        """Return q(y | x), (..., C)."""
        with torch.no_grad():
            return self.networks["classifier"](x).softmax(-1)

    def encode(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the mean of q(z | x, y), (..., K)."""
        with torch.no_grad():
            return self.networks["encoder"](nets.beside(x, y, self.classes)).mean

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        """Return the mean of p(x | z, y), (..., D)."""
        with torch.no_grad():
            return self.decoder(nets.beside(z, y, self.classes)).mean
