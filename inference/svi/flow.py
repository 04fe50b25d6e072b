"""A normalising flow over the unconstrained vector: affine couplings between a normal and the posterior."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from inference.svi.guides import normal_log_prob

BOUND = 2.0  # log scales of one coupling stay in (-BOUND, BOUND), so that no layer can blow up


@dataclass(frozen=True)
class Flow:
    """x = mu + exp(s) T(eps), T a chain of affine couplings. phi = (mu, s, weights of the couplings).

    A coupling leaves every other coordinate, a, and maps the rest, b -> b exp(c(a)) + t(a), with (c, t) a
    network of one hidden layer; the next coupling swaps the halves. It starts as the identity.

    Source: Dinh, Sohl-Dickstein, Bengio (2017), "Density estimation using Real NVP", equations 7 and 8.
    """

    dim: int
    layers: int = 4
    hidden: int = 32

    @property
    def size(self) -> int:
        return 2 * self.dim + sum(sum(shape.numel() for shape in self._shapes(k)) for k in range(self.layers))

    @property
    def noise(self) -> int:
        return self.dim

    def start(self, loc: Tensor, log_scale: Tensor) -> Tensor:
        parts = [loc, log_scale]
        for k in range(self.layers):
            first, bias, last, end = self._shapes(k)
            w = torch.randn(len(loc), first.numel(), dtype=loc.dtype, device=loc.device)
            parts += [
                w / math.sqrt(first[0]),
                *(loc.new_zeros(len(loc), s.numel()) for s in (bias, last, end)),
            ]
        return torch.cat(parts, -1)

    def draw(self, phi: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        loc, log_scale, weights = self._split(phi)
        z, log_det = self._forward(weights, noise)
        log_q = normal_log_prob(noise) - log_det - log_scale.sum(-1, keepdim=True)
        return loc[:, None] + log_scale.exp()[:, None] * z, log_q

    def gradient(self, phi: Tensor, noise: Tensor, grad: Tensor) -> Tensor:
        _, log_scale, fixed = self._split(phi.detach())
        with torch.enable_grad():
            weights = fixed.clone().requires_grad_()
            z, _ = self._forward(weights, noise)
            here = z.detach().requires_grad_()
            (score,) = torch.autograd.grad(self._log_prob(fixed, here).sum(), here)
            path = log_scale.exp()[:, None] * grad - score  # (R, P, dim)
            (d_weights,) = torch.autograd.grad((z * path.detach()).sum((-1, 0)).mean(), weights)
        z = z.detach()
        return torch.cat([path.mean(1), (path * z).mean(1), d_weights], -1)

    def retract(self, phi: Tensor, step: Tensor) -> Tensor:
        loc, log_scale, weights = self._split(phi)
        d_loc, d_log_scale, d_weights = self._split(step)
        # Weights are many and act together: they move by a tenth of what a mean moves.
        parts = [loc + log_scale.exp() * d_loc, log_scale + d_log_scale, weights + 0.1 * d_weights]
        return torch.cat(parts, -1)

    def _log_prob(self, weights: Tensor, z: Tensor) -> Tensor:
        """Log density of T(eps) at z, (R, P), by running the couplings backwards."""
        total = 0.0
        for k in reversed(range(self.layers)):
            a, b = self._halves(z, k)
            log_scale, shift = self._network(weights, k, a)
            z = self._joined(a, (b - shift) * (-log_scale).exp(), k)
            total = total - log_scale.sum(-1)
        return normal_log_prob(z) + total

    def _forward(self, weights: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        total = z.new_zeros(z.shape[:-1])
        for k in range(self.layers):
            a, b = self._halves(z, k)
            log_scale, shift = self._network(weights, k, a)
            z = self._joined(a, b * log_scale.exp() + shift, k)
            total = total + log_scale.sum(-1)
        return z, total

    def _network(self, weights: Tensor, k: int, a: Tensor) -> tuple[Tensor, Tensor]:
        """Log scale and shift of coupling k, each (R, P, |b|), from a, (R, P, |a|)."""
        start = sum(sum(s.numel() for s in self._shapes(j)) for j in range(k))
        parts = []
        for shape in self._shapes(k):
            parts.append(weights[:, start : start + shape.numel()].reshape(-1, *shape))
            start += shape.numel()
        first, bias, last, end = parts
        out = torch.tanh(a @ first + bias[:, None]) @ last + end[:, None]
        log_scale, shift = out.chunk(2, -1)
        return BOUND * torch.tanh(log_scale / BOUND), shift

    def _shapes(self, k: int) -> tuple[torch.Size, ...]:
        some, rest = self.dim // 2, self.dim - self.dim // 2
        into, out = (some, rest) if k % 2 == 0 else (rest, some)
        shapes = (into, self.hidden), (self.hidden,), (self.hidden, 2 * out), (2 * out,)
        return tuple(torch.Size(shape) for shape in shapes)

    def _halves(self, z: Tensor, k: int) -> tuple[Tensor, Tensor]:
        low, high = z[..., : self.dim // 2], z[..., self.dim // 2 :]
        return (low, high) if k % 2 == 0 else (high, low)

    def _joined(self, a: Tensor, b: Tensor, k: int) -> Tensor:
        return torch.cat([a, b] if k % 2 == 0 else [b, a], -1)

    def _split(self, phi: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        loc, log_scale, weights = phi.split([self.dim, self.dim, self.size - 2 * self.dim], -1)
        return loc, log_scale, weights
