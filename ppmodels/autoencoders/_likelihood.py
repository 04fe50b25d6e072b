"""What a decoder's features say of the data: their law, by name."""

from typing import Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn

Family = Literal["gaussian", "bernoulli", "continuous_bernoulli", "poisson"]
FAMILIES = ("gaussian", "bernoulli", "continuous_bernoulli", "poisson")


class Decoder(nn.Module):
    """Latents (..., K) to the law of x, of event shape (D,).

    network: any module (..., K) -> (..., D): the mean of a Gaussian, the logits of a Bernoulli or a continuous
    Bernoulli, the log rate of a Poisson. noise: sd of a Gaussian, one for all columns; 0 learns it.

    Source: continuous Bernoulli: Loaiza-Ganem and Cunningham (2019), arXiv:1907.06845.
    """

    def __init__(self, network: nn.Module, family: str, noise: float = 0.0):
        super().__init__()
        self.network, self.family, self.noise = network, family, noise
        learns = family == "gaussian" and noise == 0
        self.log_noise = nn.Parameter(torch.zeros(())) if learns else None

    def forward(self, z: Tensor) -> dist.Distribution:
        features = self.network(z)  # (..., D)
        if self.family == "gaussian":
            scale = self.log_noise.exp() if self.log_noise is not None else self.noise
            return dist.Normal(features, scale).to_event(1)
        if self.family == "poisson":
            return dist.Poisson(features.exp()).to_event(1)
        law = dist.Bernoulli if self.family == "bernoulli" else dist.ContinuousBernoulli
        return law(logits=features).to_event(1)


class Encoder(nn.Module):
    """Data (..., D) to q(z | x), independent normals of event shape (K,).

    network: any module (..., D) -> (..., 2 K): mean and log sd.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> dist.Distribution:
        loc, log_scale = self.network(x).chunk(2, -1)  # (..., K)
        return dist.Normal(loc, log_scale.exp()).to_event(1)
