"""Gaussian guides over the unconstrained vector, with path gradients in the guide's own coordinates.

Several guides of one kind are fitted side by side: phi is (R, size), draws are (R, P, dim). Every guide is
x = mu + A z, and a step is taken in units of its own spread, mu <- mu + A d: so the learning rate is a number
of posterior standard deviations, whatever the units of x. The gradient is that of log p(x) - log q(x) along
x alone ("sticking the landing"): unbiased, and without noise where q is the posterior. In these coordinates its
slope is also the natural gradient, by Bonnet's and Price's theorems.

Source: Roeder, Wu, Duvenaud (2017), "Sticking the landing", equation 7; Lin, Schmidt and Khan (2020), "Handling the
positive-definite constraint in the Bayesian learning rule", equation 12, for `natural`.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Guide(Protocol):
    """q(x; phi) for R values of phi at once."""

    @property
    def dim(self) -> int:
        """Number of unconstrained coordinates."""
        ...

    @property
    def size(self) -> int:
        """Number of variational parameters."""
        ...

    @property
    def noise(self) -> int:
        """Standard normal numbers that a draw takes."""
        ...

    def start(self, loc: Tensor, log_scale: Tensor) -> Tensor:
        """Return phi, (R, size), of independent normals with this loc and log scale, (R, dim)."""
        ...

    def draw(self, phi: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return x, (R, P, dim), and log q(x), (R, P), from noise (R, P, E)."""
        ...

    def gradient(self, phi: Tensor, noise: Tensor, grad: Tensor) -> Tensor:
        """Return d ELBO / d step, (R, size), from grad = d log p / d x, (R, P, dim).

        Coordinates may have a positive factor each, which Adam does not see.
        """
        ...

    def retract(self, phi: Tensor, step: Tensor) -> Tensor:
        """Return phi after a step, (R, size), in local coordinates."""
        ...


def normal_log_prob(noise: Tensor) -> Tensor:
    """Return log N(noise; 0, I) over the last axis."""
    return -0.5 * noise.square().sum(-1) - 0.5 * math.log(2 * math.pi) * noise.shape[-1]


@dataclass(frozen=True)
class MeanField:
    """Independent normals: x = mu + exp(s) eps. phi = (mu, s)."""

    dim: int

    @property
    def size(self) -> int:
        return 2 * self.dim

    @property
    def noise(self) -> int:
        return self.dim

    def start(self, loc: Tensor, log_scale: Tensor) -> Tensor:
        return torch.cat([loc, log_scale], -1)

    def draw(self, phi: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        loc, log_scale = phi.split(self.dim, -1)
        x = loc[:, None] + log_scale.exp()[:, None] * noise  # (R, P, dim)
        return x, normal_log_prob(noise) - log_scale.sum(-1, keepdim=True)

    def gradient(self, phi: Tensor, noise: Tensor, grad: Tensor) -> Tensor:
        path = phi[:, self.dim :].exp()[:, None] * grad + noise  # (R, P, dim)
        return torch.cat([path.mean(1), (path * noise).mean(1)], -1)

    def retract(self, phi: Tensor, step: Tensor) -> Tensor:
        loc, log_scale = phi.split(self.dim, -1)
        d_loc, d_log_scale = step.split(self.dim, -1)
        return torch.cat([loc + log_scale.exp() * d_loc, log_scale + d_log_scale], -1)

    def score(self, noise: Tensor) -> Tensor:
        """Return d log q(x) / d step at x held fixed, (R, P, size)."""
        return torch.cat([noise, noise.square() - 1], -1)

    def natural(self, phi: Tensor, slope: Tensor, rate: Tensor) -> Tensor:
        """Return phi after a natural-gradient step along `gradient`'s slope; a precision stays positive."""
        (loc, log_scale), (pull, widen) = phi.split(self.dim, -1), slope.split(self.dim, -1)
        factor = 1 - rate * widen + (rate * widen).square() / 2  # of the precision
        return torch.cat([loc + rate * log_scale.exp() * pull / factor, log_scale - factor.log() / 2], -1)


@dataclass(frozen=True)
class FullRank:
    """Any normal: x = mu + L eps, L lower triangular. phi = (mu, L row by row)."""

    dim: int

    @property
    def size(self) -> int:
        return self.dim + self.dim**2

    @property
    def noise(self) -> int:
        return self.dim

    def start(self, loc: Tensor, log_scale: Tensor) -> Tensor:
        return torch.cat([loc, torch.diag_embed(log_scale.exp()).flatten(1)], -1)

    def split(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        """Return mu, (R, dim), and L, (R, dim, dim)."""
        loc, factor = phi.split([self.dim, self.dim**2], -1)
        return loc, factor.reshape(-1, self.dim, self.dim)

    def draw(self, phi: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        loc, factor = self.split(phi)
        x = loc[:, None] + noise @ factor.mT  # (R, P, dim)
        log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True)
        return x, normal_log_prob(noise) - log_det

    def gradient(self, phi: Tensor, noise: Tensor, grad: Tensor) -> Tensor:
        _, factor = self.split(phi)
        path = grad @ factor + noise  # L' grad + eps, (R, P, dim)
        outer = (path.mT @ noise / path.shape[1]).tril()
        return torch.cat([path.mean(1), outer.flatten(1)], -1)

    def retract(self, phi: Tensor, step: Tensor) -> Tensor:
        loc, factor = self.split(phi)
        d_loc, d_factor = self.split(step)
        diagonal = torch.diag_embed(d_factor.diagonal(dim1=-2, dim2=-1).exp())
        # A row holds up to dim - 1 such steps: together they must not outweigh the diagonal.
        turned = factor @ (diagonal + d_factor.tril(-1) / math.sqrt(self.dim))
        moved = loc + (factor @ d_loc[..., None])[..., 0]
        return torch.cat([moved, turned.flatten(1)], -1)

    def score(self, noise: Tensor) -> Tensor:
        """Return d log q(x) / d step at x held fixed, (R, P, size)."""
        outer = noise[..., :, None] * noise[..., None, :] - torch.eye(self.dim).to(noise)
        return torch.cat([noise, outer.tril().flatten(-2)], -1)

    def natural(self, phi: Tensor, slope: Tensor, rate: Tensor) -> Tensor:
        """Return phi after a natural-gradient step along `gradient`'s slope; the precision stays positive."""
        (loc, factor), (pull, below) = self.split(phi), self.split(slope)
        bend = -rate * (below + below.tril(-1).mT)  # what the precision gains, in sds
        eye = torch.eye(self.dim).to(bend)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(eye + bend + bend @ bend / 2))  # (R, dim, dim)
        moved = loc + rate * (factor @ inverse @ pull[..., None])[..., 0]
        return torch.cat([moved, (factor @ torch.linalg.cholesky(inverse)).flatten(1)], -1)


@dataclass(frozen=True)
class LowRank:
    """A normal with covariance S (I + W W') S: x = mu + exp(s) (eps + W eta). phi = (mu, s, W row by row)."""

    dim: int
    rank: int

    @property
    def size(self) -> int:
        return 2 * self.dim + self.dim * self.rank

    @property
    def noise(self) -> int:
        return self.dim + self.rank

    def start(self, loc: Tensor, log_scale: Tensor) -> Tensor:
        w = 0.01 * torch.randn(len(loc), self.dim * self.rank, dtype=loc.dtype, device=loc.device)
        return torch.cat([loc, log_scale, w], -1)  # W = 0 would be a saddle

    def split(self, phi: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mu and s, (R, dim), and W, (R, dim, rank)."""
        loc, log_scale, w = phi.split([self.dim, self.dim, self.dim * self.rank], -1)
        return loc, log_scale, w.reshape(-1, self.dim, self.rank)

    def draw(self, phi: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        loc, log_scale, w = self.split(phi)
        z, solved, core = self._standard(w, noise)
        x = loc[:, None] + log_scale.exp()[:, None] * z
        log_det = log_scale.sum(-1) + torch.linalg.cholesky(core).diagonal(dim1=-2, dim2=-1).log().sum(-1)
        log_q = -0.5 * (z * solved).sum(-1) - 0.5 * math.log(2 * math.pi) * self.dim
        return x, log_q - log_det[:, None]

    def gradient(self, phi: Tensor, noise: Tensor, grad: Tensor) -> Tensor:
        _, log_scale, w = self.split(phi)
        z, solved, _ = self._standard(w, noise)
        path = log_scale.exp()[:, None] * grad + solved  # (R, P, dim)
        d_w = path.mT @ noise[..., self.dim :] / path.shape[1]  # (R, dim, rank)
        return torch.cat([path.mean(1), (path * z).mean(1), d_w.flatten(1)], -1)

    def retract(self, phi: Tensor, step: Tensor) -> Tensor:
        loc, log_scale, w = self.split(phi)
        d_loc, d_log_scale, d_w = self.split(step)
        moved = loc + log_scale.exp() * d_loc
        return torch.cat([moved, log_scale + d_log_scale, (w + d_w).flatten(1)], -1)

    def _standard(self, w: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """z, (I + W W')^-1 z by Woodbury, both (R, P, dim), and I + W' W, (R, rank, rank)."""
        eps, eta = noise.split([self.dim, self.rank], -1)
        z = eps + eta @ w.mT
        core = w.mT @ w + torch.eye(self.rank, dtype=w.dtype, device=w.device)
        return z, z - torch.linalg.solve(core, w.mT @ z.mT).mT @ w.mT, core
