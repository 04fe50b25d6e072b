"""A codebook: every vector becomes the nearest of a few, and gradients pass as if it had not."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.functional import one_hot


class Quantized(NamedTuple):
    """The nearest code's vector (..., D), with the gradient of what came in; its number (...); what learning costs.

    codebook: |sg[z] - e|^2, which moves codes. commitment: |z - sg[e]|^2, which moves what comes in; both (...).
    """

    values: Tensor
    codes: Tensor
    codebook: Tensor
    commitment: Tensor


class VectorQuantizer(nn.Module):
    r"""Nearest of K codes: (..., D) to `Quantized`.

    decay: 0 learns codes by the gradient of `codebook`. Else each code is a moving average of the vectors that
    chose it, N_k <- d N_k + (1 - d) n_k and m_k <- d m_k + (1 - d) sum z, e_k = m_k / N_k; in training alone.
    restart: a code that fewer than so many vectors a batch choose, on average, becomes one of the batch's.

    Source: van den Oord, Vinyals and Kavukcuoglu (2017), arXiv:1711.00937, equations 2, 3 and 6 to 8; restarts:
    Dhariwal et al. (2020), arXiv:2005.00341, section 3.3.
    """

    counts: Tensor
    sums: Tensor

    def __init__(self, codes: int, dim: int, decay: float = 0.99, restart: float = 0.01):
        super().__init__()
        if codes < 1 or dim < 1 or not 0 <= decay < 1 or restart < 0:
            raise ValueError(f"no codebook has {codes} codes of {dim}, decay {decay}, restart {restart}")
        self.decay, self.restart = decay, restart
        start = torch.randn(codes, dim)
        self.learned = nn.Parameter(start) if decay == 0 else None
        self.register_buffer("counts", torch.ones(codes))
        self.register_buffer("sums", start.clone())

    @property
    def codebook(self) -> Tensor:
        """The codes, (K, D)."""
        return self.learned if self.learned is not None else self.sums / self.counts[:, None]

    def forward(self, z: Tensor) -> Quantized:
        flat, book = z.reshape(-1, z.shape[-1]), self.codebook
        codes = nearest(flat.detach(), book.detach())
        chosen = book[codes].reshape(z.shape)
        if self.training and self.learned is None:
            self._follow(flat.detach(), codes)
        found = codes.reshape(z.shape[:-1])
        to_codes, to_inputs = (z.detach() - chosen).square().sum(-1), (z - chosen.detach()).square().sum(-1)
        return Quantized(z + (chosen - z).detach(), found, to_codes, to_inputs)

    @torch.no_grad()
    def _follow(self, z: Tensor, codes: Tensor) -> None:
        """Move the averages; give unused codes a vector of this batch."""
        told = one_hot(codes, len(self.counts)).to(z)  # (M, K)
        counts, sums = told.sum(0), told.mT @ z
        strangers = z[torch.randint(len(z), (len(self.counts),), device=z.device)]  # (K, D)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(counts)
            dist.all_reduce(sums)
            dist.broadcast(strangers, 0)
        self.counts.lerp_(counts.to(self.counts), 1 - self.decay)
        self.sums.lerp_(sums.to(self.sums), 1 - self.decay)
        dead = self.counts < self.restart
        self.sums.copy_(torch.where(dead[:, None], strangers.to(self.sums), self.sums))
        self.counts.copy_(torch.where(dead, 1.0, self.counts))


def nearest(z: Tensor, codebook: Tensor) -> Tensor:
    """Return the number of the nearest code of each vector (M, D), (M,); of several the first."""
    return (codebook.square().sum(-1) - 2 * z @ codebook.mT).argmin(-1)


def perplexity(codes: Tensor, number: int) -> Tensor:
    """Return how many of `number` codes are in use, exp of the entropy of their shares, (): from 1 to `number`."""
    share = torch.bincount(codes.flatten(), minlength=number) / codes.numel()
    return torch.special.entr(share).sum().exp()
