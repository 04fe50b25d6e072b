"""Which latents a variational autoencoder uses, and whether it uses any: the diagnosis of posterior collapse."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ppmodels.autoencoders.bounds import elbo
from ppmodels.autoencoders.vae import VariationalAutoencoder

ACTIVE = 0.01  # variance of a coordinate's posterior mean over rows above which it says something
SILENT = 0.01  # nats of divergence below which a coordinate's posterior is its prior


@dataclass(frozen=True)
class Collapse:
    """What each latent coordinate does, over some rows.

    kl: mean divergence from the prior, nats, (K,). variance: of the posterior's mean over rows, (K,).
    information: nats that all latents together tell of which row it is, at most log N. active: (K,), both enough.
    """

    kl: Tensor
    variance: Tensor
    information: float
    active: Tensor

    @property
    def collapsed(self) -> bool:
        """Does no latent tell anything?"""
        return not bool(self.active.any())

    def message(self) -> str:
        """The finding in one line, with what to do."""
        dead = [str(i) for i in (~self.active).nonzero()[:, 0].tolist()]
        used = f"{len(self.active) - len(dead)} of {len(self.active)} latents active, {self.information:.2f} nats"
        if not dead:
            return used
        advice = "anneal beta from 0, give free_bits, or weaken the decoder" if self.collapsed else "fewer would do"
        return f"{used}; latents {', '.join(dead)} are their prior: {advice}"


@torch.no_grad()
def diagnose(model: VariationalAutoencoder, x: Tensor) -> Collapse:
    """Look at rows x, (N, D): at least two.

    The information is the mean divergence less that of the mean of all posteriors from the prior, by draws.

    Source: Burda et al. (2016), section 5.2, for active units; Hoffman and Johnson (2016), ELBO surgery.
    """
    if len(x) < 2:
        raise ValueError("which latents vary needs at least two rows")
    kl = elbo(model, x)[1].mean(0)
    variance = model.encoder(x).mean.var(0, correction=0)
    return Collapse(kl, variance, information(model, x), (variance > ACTIVE) & (kl > SILENT))


@torch.no_grad()
def information(model: VariationalAutoencoder, x: Tensor, limit: int = 2000) -> float:
    """Return I(row; z) under q, nats: a mean over rows of log q(z | x) - log mean_m q(z | x_m), one draw a row."""
    rows = x[:limit]
    q = model.encoder(rows)
    z = q.rsample()
    own = q.log_prob(z)
    among = q.log_prob(z[:, None])  # (N, N): draw n under the posterior of row m
    return float((own - among.logsumexp(1) + math.log(len(rows))).mean().clamp(min=0))
