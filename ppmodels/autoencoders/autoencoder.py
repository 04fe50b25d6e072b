"""Autoencoder: rows through a narrow, a sparse or a noisy place and back, with the least squared error."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize, relu

from ppmodels.nn.mlp import mlp


class Autoencoder(nn.Module):
    r"""A code of every row, and the row from its code.

    .. math:: |x - g(f(\tilde x))|^2 + \lambda \sum_k |z_k|, \quad \tilde x = x + \sigma \epsilon

    encoder, decoder: any modules (..., D) -> (..., K) and back; deep ones make it nonlinear PCA. noise: sigma
    above 0 makes it denoising. sparsity: lambda above 0 makes it sparse; or, where `activity` says how often a
    unit of a code in 0..1 should be on, the weight of the Bernoulli divergence of that from its mean.

    Source: Hinton and Salakhutdinov (2006); Vincent et al. (2008) for noise; Ng (2011), CS294A, for activity.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        noise: float = 0.0,
        sparsity: float = 0.0,
        activity: float | None = None,
    ):
        super().__init__()
        if noise < 0 or sparsity < 0 or not (activity is None or 0 < activity < 1):
            raise ValueError(f"noise {noise} and sparsity {sparsity} must not be negative, activity in (0, 1)")
        self.encoder, self.decoder = encoder, decoder
        self.noise, self.sparsity, self.activity = noise, sparsity, activity

    def encode(self, x: Tensor) -> Tensor:
        """Return the codes, (..., K)."""
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        """Return the rows of codes, (..., D)."""
        return self.decoder(z)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))

    def loss(self, x: Tensor) -> Tensor:
        """Return the objective, a mean over rows of x, (N, D), as ().

        Raises: ValueError where the decoder does not make rows of x's width.
        """
        z = self.encoder(x + self.noise * torch.randn_like(x) if self.noise else x)  # (N, K)
        told = self.decoder(z)
        if told.shape != x.shape:
            raise ValueError(f"the decoder makes {tuple(told.shape[1:])} a row, and x has {tuple(x.shape[1:])}")
        return (told - x).square().sum(-1).mean() + (self._price(z) if self.sparsity else 0.0)

    def _price(self, z: Tensor) -> Tensor:
        if self.activity is None:
            return self.sparsity * (z.abs() * self._lengths()).sum(-1).mean()
        mean, wanted = z.mean(0).clamp(1e-6, 1 - 1e-6), self.activity
        kl = wanted * (math.log(wanted) - mean.log()) + (1 - wanted) * (math.log(1 - wanted) - (-mean).log1p())
        return self.sparsity * kl.sum()

    def _lengths(self) -> Tensor | float:
        """Of a linear decoder's columns: else small codes times long columns would be cheap."""
        return self.decoder.weight.norm(dim=0) if isinstance(self.decoder, nn.Linear) else 1.0


class LinearAutoencoder(Autoencoder):
    """The code is W x, and the row V z, with V = W' when tied; x centred. Its optimum spans the leading components.

    The weights need not be orthogonal, nor the components themselves: any basis of their space does.

    Source: Bourlard and Kamp (1988); Baldi and Hornik (1989).
    """

    def __init__(self, dim: int, latents: int, tied: bool = True):
        encoder = nn.Linear(dim, latents, bias=False)
        super().__init__(encoder, _Tied(encoder) if tied else nn.Linear(latents, dim, bias=False))


class SparseAutoencoder(Autoencoder):
    """Rectified codes, more of them than columns, few of them on at a time: a learned dictionary.

    Source: Olshausen and Field (1996); the columns' lengths count in the price, so that they need no constraint.
    """

    def __init__(self, dim: int, units: int, sparsity: float):
        super().__init__(nn.Sequential(nn.Linear(dim, units), nn.ReLU()), nn.Linear(units, dim), sparsity=sparsity)

    @property
    def dictionary(self) -> Tensor:
        """Its atoms, of length 1, (K, D)."""
        return normalize(self.decoder.get_parameter("weight").detach().mT, dim=-1)

    def active(self, x: Tensor, threshold: float = 1e-3) -> float:
        """Return the share of units that are on, over rows."""
        with torch.no_grad():
            return float((relu(self.encode(x)) * self._lengths() > threshold).double().mean())


def deep_autoencoder(dim: int, hidden: tuple[int, ...], latents: int, **options: float) -> Autoencoder:
    """Layers of these sizes down to the latents, and the same up again. options: of `Autoencoder`."""
    sizes = [dim, *hidden, latents]
    return Autoencoder(mlp(sizes, "tanh"), mlp(sizes[::-1], "tanh"), **options)


class _Tied(nn.Module):
    """Back by the transpose of the weights in."""

    def __init__(self, encoder: nn.Linear):
        super().__init__()
        self._encoder = [encoder]  # in a list, so that its weights are not listed twice

    def forward(self, z: Tensor) -> Tensor:
        return linear(z, self._encoder[0].weight.mT)
