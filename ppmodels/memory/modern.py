"""Modern Hopfield network: continuous states, a log-sum-exp energy, and attention as its update."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

# Shapes everywhere: patterns (N, d), one a row; states (..., d).


def energy(state: Tensor, patterns: Tensor, beta: float = 1.0) -> Tensor:
    r"""Return E, (...), between 0 and 2 M^2 for states inside the patterns' convex hull.

    .. math:: E(\xi) = -\mathrm{lse}(\beta, X \xi) + \tfrac12 |\xi|^2 + \tfrac1\beta \log N + \tfrac12 M^2,
        \quad M = \max_i |x_i|

    Source: Ramsauer et al. (2021), arXiv:2008.02217, equation 2.
    """
    _check(state, patterns, beta)
    largest = patterns.square().sum(-1).max()
    constant = math.log(len(patterns)) / beta + largest / 2
    return -lse(state @ patterns.mT, beta) + state.square().sum(-1) / 2 + constant


def lse(x: Tensor, beta: float = 1.0) -> Tensor:
    r"""Return :math:`\beta^{-1} \log \sum_i \exp \beta x_i` over the last axis, at any size of x."""
    return (beta * x).logsumexp(-1) / beta


def update(state: Tensor, patterns: Tensor, beta: float = 1.0) -> Tensor:
    r"""Return :math:`X^\top \mathrm{softmax}(\beta X \xi)`: attention of the states to the patterns.

    It minimises the energy with its concave part replaced by a tangent (CCCP), so the energy never rises.
    """
    _check(state, patterns, beta)
    queries = state.reshape(1, -1, state.shape[-1])
    out = scaled_dot_product_attention(queries, patterns[None], patterns[None], scale=beta)
    return out.reshape(state.shape)


class Retrieval(NamedTuple):
    """Where an iteration ended. state: (..., d). steps: how many were done. change: the last one's, (...)."""

    state: Tensor
    steps: int
    change: Tensor


def retrieve(state: Tensor, patterns: Tensor, beta: float = 1.0, steps: int = 100, tol: float = 1e-6) -> Retrieval:
    """Return the states after updates until none moves by more than tol; one step is a layer of attention."""
    change = torch.full(state.shape[:-1], math.inf, dtype=state.dtype)
    for done in range(1, steps + 1):
        moved = update(state, patterns, beta)
        change = (moved - state).norm(dim=-1)
        state = moved
        if change.max() <= tol:
            return Retrieval(state, done, change)
    return Retrieval(state, steps, change)


def separation(patterns: Tensor) -> Tensor:
    r"""Return :math:`\Delta_i = x_i^\top x_i - \max_{j \ne i} x_i^\top x_j`, (N,), without an (N, N) table.

    Raises: ValueError when there is only one pattern.
    """
    if len(patterns) < 2:
        raise ValueError("a separation needs at least two patterns")
    rows = []
    for start in range(0, len(patterns), 1024):
        part = patterns[start : start + 1024]
        inner = part @ patterns.mT  # (n, N)
        places = torch.arange(len(part))
        own = inner[places, places + start].clone()
        inner[places, places + start] = -math.inf
        rows.append(own - inner.max(-1).values)
    return torch.cat(rows)


def retrieval_bound(patterns: Tensor, beta: float = 1.0) -> Tensor:
    r"""Return :math:`2 (N - 1) M e^{-\beta \Delta_i}`, (N,): how far one update can lead away from pattern i.

    Source: Ramsauer et al. (2021), theorem 4, with the distance of the fixed point taken as nothing.
    """
    _check(patterns, patterns, beta)
    radius = patterns.norm(dim=-1).max()
    return 2 * (len(patterns) - 1) * radius * (-beta * separation(patterns)).exp()


def effective_patterns(state: Tensor, patterns: Tensor, beta: float = 1.0) -> Tensor:
    r"""Return how many patterns a state is a mean of, (...): :math:`1 / \sum_i p_i^2`, p = softmax(beta X xi).

    At a fixed point it tells the regime: 1 a single memory, N the average of all, between them a metastable
    state that is the average of some.
    """
    _check(state, patterns, beta)
    return 1 / (beta * state @ patterns.mT).softmax(-1).square().sum(-1)


def _check(state: Tensor, patterns: Tensor, beta: float) -> None:
    if patterns.ndim != 2 or 0 in patterns.shape or state.shape[-1:] != patterns.shape[1:]:
        raise ValueError(
            f"patterns (N, d) and states (..., d) must fit; got {tuple(patterns.shape)}, {tuple(state.shape)}"
        )
    if not 0 < beta < math.inf:
        raise ValueError(f"beta must be positive and finite; it is {beta}")
