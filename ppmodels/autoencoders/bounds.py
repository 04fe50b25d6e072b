"""What a variational autoencoder is worth on rows: its parts row by row, and bounds that close in on log p(x)."""

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from ppmodels.autoencoders.vae import VariationalAutoencoder


def normal_kl(loc: Tensor, log_variance: Tensor) -> Tensor:
    r"""Divergence of N(mu, sigma^2) from N(0, 1) by coordinate, of any shape.

    .. math:: -\tfrac12 (1 + \log \sigma^2 - \mu^2 - \sigma^2)

    Source: Kingma and Welling (2014), appendix B.
    """
    return -0.5 * (1 + log_variance - loc.square() - log_variance.exp())


def elbo(model: VariationalAutoencoder, x: Tensor, num_samples: int = 1) -> tuple[Tensor, Tensor]:
    """Return E log p(x | z), a mean of draws, (N,), and the divergence by coordinate, (N, K): the ELBO's two parts."""
    q = model.encoder(x)
    told = model.decoder(q.rsample(torch.Size([num_samples]))).log_prob(x).mean(0)
    return told, kl_divergence(q.base_dist, _prior(model, x).base_dist)


def log_weights(model: VariationalAutoencoder, x: Tensor, num_samples: int) -> Tensor:
    """Return log p(x, z) - log q(z | x) at draws of q, (num_samples, N)."""
    q = model.encoder(x)
    z = q.rsample(torch.Size([num_samples]))  # (S, N, K)
    return model.decoder(z).log_prob(x) + _prior(model, x).log_prob(z) - q.log_prob(z)


@torch.no_grad()
def log_likelihood(model: VariationalAutoencoder, x: Tensor, num_samples: int = 1000, chunk: int = 100) -> Tensor:
    """Return the importance-weighted bound on log p(x) of each row, (N,); in expectation it rises with num_samples.

    num_samples: draws a row, all of which are used, `chunk` at a time. One of them is a draw of the ELBO.

    Source: Burda, Grosse and Salakhutdinov (2016), arXiv:1509.00519, equation 8.
    """
    if num_samples < 1 or chunk < 1:
        raise ValueError(f"num_samples and chunk must be at least 1; got {num_samples} and {chunk}")
    total = x.new_full((len(x),), -math.inf)
    for done in range(0, num_samples, chunk):
        weights = log_weights(model, x, min(chunk, num_samples - done))
        total = torch.logaddexp(total, weights.logsumexp(0))
    return total - math.log(num_samples)


def score_gradient(model: Any, x: Tensor, num_samples: int) -> tuple[Tensor, Tensor]:
    """Surrogates of one expectation, E_q log p(x, z) - log q(z), each (num_samples,), summed over rows.

    Their gradients are two unbiased estimates: by reparametrised draws, and by the score of q with all else fixed.
    """
    q = model.encoder(x)
    z = q.rsample(torch.Size([num_samples]))
    value = model.decoder(z).log_prob(x) + _prior(model, x).log_prob(z) - q.log_prob(z)
    fixed = z.detach()
    height = model.decoder(fixed).log_prob(x) + _prior(model, x).log_prob(fixed) - q.log_prob(fixed)
    score = height.detach() * q.log_prob(fixed) + (height - q.log_prob(fixed)) - (height - q.log_prob(fixed)).detach()
    return value.sum(-1), score.sum(-1)


def _prior(model: VariationalAutoencoder, x: Tensor) -> Any:
    return dist.Normal(x.new_zeros(model.latents), 1.0).to_event(1)
