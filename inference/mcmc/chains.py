"""What kernels carry from draw to draw: where the chains are, and what was tuned."""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from inference.mcmc.metric import Metric, spread, whiten


@dataclass(frozen=True)
class Chains:
    """Positions of all chains, (C, dim), with log density, (C,), and its gradient, (C, dim)."""

    x: Tensor
    log_prob: Tensor
    grad: Tensor

    def select(self, index: Tensor) -> "Chains":
        """Some of the chains."""
        return Chains(self.x[index], self.log_prob[index], self.grad[index])


@dataclass(frozen=True)
class Tuned:
    """What warm-up finds and draws keep: step size, trajectory length in standard coordinates, metric."""

    step_size: float
    length: float
    metric: Metric

    def with_step(self, step_size: float) -> "Tuned":
        return replace(self, step_size=step_size)


class Kernel(Protocol):
    """One transition of every chain."""

    def __call__(self, chains: Chains, tuned: Tuned, turn: int) -> tuple[Chains, dict[str, Tensor]]:
        """Return the chains after one transition, and its statistics by ArviZ's names, each (C,)."""
        ...


def leapfrog(value_and_grad: Any, x: Tensor, n: Tensor, whitened: Tensor, step: Tensor, factor: Tensor) -> Any:
    """One leapfrog step of every chain: x, n and F^T grad, each (C, dim), step (C, 1).

    Returns: x, n, F^T grad, grad and log density afterwards.
    """
    half = n + 0.5 * step * whitened
    x = x + step * spread(factor, half)
    log_prob, grad = value_and_grad(x)
    whitened = whiten(factor, grad)
    return x, half + 0.5 * step * whitened, whitened, grad, log_prob


def normal(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal numbers, (C, dim), with the chains innermost in memory."""
    return torch.randn(shape[::-1], generator=generator, dtype=like.dtype, device=like.device).mT


def uniform(generator: torch.Generator, chains: Chains) -> Tensor:
    """Uniform numbers in (0, 1), one a chain, (C,)."""
    like = chains.log_prob
    return torch.rand(len(like), generator=generator, dtype=like.dtype, device=like.device)
