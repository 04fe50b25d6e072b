"""Semi-supervised variational autoencoder: a few rows come with their class, and the others' is summed out."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppmodels.autoencoders import _networks
from ppmodels.autoencoders._likelihood import FAMILIES, Decoder, Encoder, Family
from ppmodels.base import Data, dims


@dataclass(frozen=True)
class SemiSupervisedVAE:
    r"""A class and a style make every row; where the class is not told it is a latent, enumerated.

    .. math:: y_n \sim Cat(1/C),\; z_n \sim N(0, I),\; x_n \sim p(x; f(z_n, y_n)), \quad
        q(y_n, z_n \mid x_n) = Cat(y_n; \pi(x_n))\, N(z_n; \mu(x_n, y_n), \mathrm{diag}\, \sigma(x_n, y_n)^2)

    A label that is told takes the place of both laws of y. The classifier learns from it by a term of its own in
    the guide, `weight` log pi(label), which a fit's ELBO holds; without it few labels are lost among the rows.

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
        if self.network == "convolutional" or not 0 <= self.weight < math.inf:
            raise ValueError("network must be mlp or linear, and weight at least 0 and finite")
        _networks.check_fields(self, FAMILIES)

    @cached_property
    def networks(self) -> nn.ModuleDict:
        """The classifier and the encoder: all that reads x."""
        encoder = Encoder(_networks.encoder_network(self, self.dim + self.classes, 2 * self.latents))
        return nn.ModuleDict(
            {"classifier": _networks.encoder_network(self, self.dim, self.classes), "encoder": encoder}
        )

    @cached_property
    def decoder(self) -> Decoder:
        """From (z, y) (..., K + C) to p(x | z, y)."""
        return Decoder(
            _networks.decoder_network(self, self.latents + self.classes, self.dim), self.likelihood, self.noise
        )

    def check(self, data: Data) -> None:
        """Raise ValueError where a row cannot be one of this model's."""
        _networks.check_rows(data.observed["x"], self.dim, self.likelihood)
        _networks.check_classes(data.given["label"], self.classes, unknown=True)

    def inputs(self, rows: int) -> dict[str, Tensor]:
        return {"label": torch.arange(rows) % (self.classes + 1) - 1}

    def model(self, data: Data) -> None:
        pyro.module("decoder", self.decoder)
        with data.plate():
            z = pyro.sample("z", dist.Normal(torch.zeros(self.latents), 1.0).to_event(1), infer=dims("latent"))
            y = pyro.sample("y", self._class(z.new_zeros(self.classes), data), infer={"enumerate": "parallel"})
            pyro.sample("x", self.decoder(_networks.beside(z, y, self.classes)), infer=dims("feature"))

    def guide(self, data: Data) -> None:
        x, label = data.observed["x"], data.given["label"]
        pyro.module("networks", self.networks)
        logits = self.networks["classifier"](x)  # (N, C)
        with data.plate():
            right = dist.Categorical(logits=logits).log_prob(label.clamp(min=0)) * (label >= 0)
            pyro.factor("classified", -self.weight * right, has_rsample=True)
            y = pyro.sample("y", self._class(logits, data), infer={"enumerate": "parallel"})
            pyro.sample("z", self.networks["encoder"](_networks.beside(x, y, self.classes)), infer=dims("latent"))

    def classify(self, x: Tensor) -> Tensor:
        """Return q(y | x), (..., C)."""
        with torch.no_grad():
            return self.networks["classifier"](x).softmax(-1)

    def _class(self, logits: Tensor, data: Data) -> dist.Categorical:
        """The law of y by row: these logits, or e^-100 for all but the label that was told."""
        label = data.given["label"][:, None]  # (N, 1)
        known = torch.where(torch.arange(self.classes, device=label.device) == label, 0.0, -100.0).to(logits)
        return dist.Categorical(logits=torch.where(label >= 0, known, logits))
