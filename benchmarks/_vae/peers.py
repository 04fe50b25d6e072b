"""The same autoencoder, one softplus layer each way and a Bernoulli law, as others write and train it."""

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits


class TwoHeads(nn.Module):
    """The hidden layer, and a head each for mean and log sd: how Pyro's example and pythae's networks are laid out."""

    def __init__(self, dim: int, hidden: int, latents: int):
        super().__init__()
        self.first, self.loc, self.log_scale = (
            nn.Linear(dim, hidden),
            nn.Linear(hidden, latents),
            nn.Linear(hidden, latents),
        )

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.softplus(self.first(x))
        return torch.cat([self.loc(h), self.log_scale(h)], -1)


def decoder_of(dim: int, hidden: int, latents: int) -> nn.Sequential:
    """From latents to logits."""
    return nn.Sequential(nn.Linear(latents, hidden), nn.Softplus(), nn.Linear(hidden, dim))


def batches(rows: int, batch: int) -> Iterator[Tensor]:
    """Yield the rows of a batch, epoch after epoch in new orders."""
    while True:
        yield from torch.randperm(rows).split(batch)


def pyro_svi(x: Tensor, size: Any, steps: int, seed: int) -> tuple[float, tuple[nn.Module, nn.Module]]:
    """Pyro's SVI and Trace_ELBO, in the way of its own VAE example: modules, a plate, `pyro.optim.Adam`."""
    torch.manual_seed(seed)
    pyro.clear_param_store()
    encoder, decoder = (
        TwoHeads(x.shape[1], size.hidden, size.latents),
        decoder_of(x.shape[1], size.hidden, size.latents),
    )

    def model(images: Tensor) -> None:
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(images)):
            zeros = images.new_zeros(len(images), size.latents)
            z = pyro.sample("latent", dist.Normal(zeros, torch.ones_like(zeros)).to_event(1))
            pyro.sample("obs", dist.Bernoulli(logits=decoder(z), validate_args=False).to_event(1), obs=images)

    def guide(images: Tensor) -> None:
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(images)):
            loc, log_scale = encoder(images).chunk(2, -1)
            pyro.sample("latent", dist.Normal(loc, log_scale.exp()).to_event(1))

    inference = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
    with pyro.validation_enabled(False):  # as its example does
        began = time.process_time()
        for rows in itertools.islice(batches(len(x), size.batch), steps):
            inference.step(x[rows])
        seconds = time.process_time() - began
    pyro.clear_param_store()
    return seconds, (encoder, decoder)


def plain(x: Tensor, size: Any, steps: int, seed: int) -> tuple[float, tuple[nn.Module, nn.Module]]:
    """A loop by hand: closed-form divergence, fused Adam, nothing else."""
    torch.manual_seed(seed)
    encoder, decoder = (
        TwoHeads(x.shape[1], size.hidden, size.latents),
        decoder_of(x.shape[1], size.hidden, size.latents),
    )
    adam = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3, fused=True)
    began = time.process_time()
    for rows in itertools.islice(batches(len(x), size.batch), steps):
        images = x[rows]
        loc, log_scale = encoder(images).chunk(2, -1)
        z = loc + log_scale.exp() * torch.randn_like(loc)
        told = binary_cross_entropy_with_logits(decoder(z), images, reduction="sum")
        kl = 0.5 * (loc.square() + (2 * log_scale).exp() - 2 * log_scale - 1).sum()
        adam.zero_grad()
        ((told + kl) / len(images)).backward()
        adam.step()
    return time.process_time() - began, (encoder, decoder)


def pythae_vae(x: Tensor, size: Any, steps: int, seed: int) -> tuple[float, tuple[nn.Module, nn.Module]]:
    """Pythae's VAE with binary cross-entropy. Its model and Adam in a bare loop: its trainer only adds to that."""
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.inner = TwoHeads(x.shape[1], size.hidden, size.latents)

        def forward(self, images: Tensor) -> Any:
            loc, log_scale = self.inner(images).chunk(2, -1)
            return ModelOutput(embedding=loc, log_covariance=2 * log_scale)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.inner = decoder_of(x.shape[1], size.hidden, size.latents)

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.inner(z).sigmoid())

    torch.manual_seed(seed)
    config = VAEConfig(input_dim=(x.shape[1],), latent_dim=size.latents, reconstruction_loss="bce")
    model = VAE(config, Encoder(), Decoder())
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    began = time.process_time()
    for rows in itertools.islice(batches(len(x), size.batch), steps):
        adam.zero_grad()
        model({"data": x[rows]}).loss.backward()
        adam.step()
    return time.process_time() - began, (model.encoder.inner, model.decoder.inner)
