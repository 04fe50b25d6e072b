"""Hidden Markov chains: the likelihood in log T rounds, states and transitions from its gradient, the best path.

All in logarithms, for trials in a batch. log_initial (S,), log_transition (S, S), log_observed (R, T, S).
"""

import torch
from torch import Tensor

SMALL = 1e-300  # what a probability of zero is taken for, so that its logarithm and gradients are finite


def log_likelihood(log_initial: Tensor, log_transition: Tensor, log_observed: Tensor) -> Tensor:
    """Return log p(y), (R,).

    Bins are joined in pairs: each pair's table of first and last states is one log-product, (S, S), so that T
    steps become log2 T rounds. It is S times the work of a pass along the bins, and still pays for few states.
    """
    first = log_initial + log_observed[:, 0]  # (R, S)
    steps = log_transition + log_observed[:, 1:, None, :]  # (R, T - 1, S, S)
    while steps.shape[1]:
        if steps.shape[1] % 2:
            first, steps = (first[..., None] + steps[:, 0]).logsumexp(-2), steps[:, 1:]
        if steps.shape[1]:
            steps = (steps[:, 0::2, :, :, None] + steps[:, 1::2, None, :, :]).logsumexp(-2)
            if steps.shape[1] == 1:
                first, steps = (first[..., None] + steps[:, 0]).logsumexp(-2), steps[:, 1:]
    return first.logsumexp(-1)


def filtered(log_initial: Tensor, log_transition: Tensor, log_observed: Tensor) -> Tensor:
    """Return log p(z_t, y_1..t), (R, T, S), bin by bin: the textbook's forward pass."""
    now = log_initial + log_observed[:, 0]
    passed = [now]
    for t in range(1, log_observed.shape[1]):
        now = (now[..., None] + log_transition).logsumexp(-2) + log_observed[:, t]
        passed.append(now)
    return torch.stack(passed, 1)


def posterior(log_initial: Tensor, log_transition: Tensor, log_observed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return p(z_t | y), (R, T, S), the expected number of each transition, (S, S), and log p(y), (R,).

    Forward and backward at once: they are the derivatives of log p(y) by what was observed and by the transitions.

    Source: Baum (1972), by Eisner (2016), Inside-Outside and Forward-Backward Algorithms Are Just Backprop.
    """
    with torch.enable_grad():
        observed = log_observed.detach().requires_grad_()
        transition = log_transition.detach().requires_grad_()
        value = log_likelihood(log_initial.detach(), transition, observed)
        wanted = [observed, transition] if observed.shape[1] > 1 else [observed]
        state, *moves = torch.autograd.grad(value.sum(), wanted)
    return state, moves[0] if moves else torch.zeros_like(log_transition), value.detach()


def viterbi(log_initial: Tensor, log_transition: Tensor, log_observed: Tensor) -> tuple[Tensor, Tensor]:
    """Return the most probable path of states, (R, T), and log p(path, y), (R,).

    Source: Viterbi (1967), IEEE Trans. Information Theory 13.
    """
    best, came = log_initial + log_observed[:, 0], []
    for t in range(1, log_observed.shape[1]):
        best, origin = (best[..., None] + log_transition).max(-2)
        best = best + log_observed[:, t]
        came.append(origin)
    value, state = best.max(-1)
    path = [state]
    for origin in reversed(came):
        state = origin.gather(-1, state[:, None])[:, 0]
        path.append(state)
    return torch.stack(path[::-1], -1), value


def sample(initial: Tensor, transition: Tensor, bins: int, shape: torch.Size) -> Tensor:
    """Return paths of states, (*shape, T), drawn from the chain."""
    number = max(1, shape.numel())
    state = torch.multinomial(initial, number, replacement=True)
    path = [state]
    for _ in range(bins - 1):
        state = torch.multinomial(transition[state], 1)[:, 0]
        path.append(state)
    return torch.stack(path, -1).reshape(*shape, bins)


def logarithms(*probabilities: Tensor) -> tuple[Tensor, ...]:
    """Return the logarithms, finite also where a probability is zero."""
    return tuple(p.clamp_min(SMALL if p.dtype == torch.float64 else 1e-37).log() for p in probabilities)
