"""Hamiltonian Monte Carlo with a jittered trajectory, the same for all chains, so that they keep step.

Chains of one batch take the same number of leapfrog steps: nothing waits, and nothing is masked.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from inference.density import Batched
from inference.mcmc.chains import Chains, Kernel, Tuned, leapfrog, normal, uniform
from inference.mcmc.metric import whiten
from inference.mcmc.plan import Plan

DIVERGED = 1000.0  # an energy error beyond which a trajectory has left the level set
GOLDEN = (math.sqrt(5) - 1) / 2


def kernel(
    batched: Batched, generator: torch.Generator, plan: Plan, observe: Callable[..., None] | None = None
) -> Kernel:
    """Return the transition: fresh momenta, L leapfrog steps, one Metropolis test.

    L = ceil(u_t length / step_size), u_t on (0, 2) a golden-ratio sequence: low discrepancy instead of luck.
    observe: is shown positions, proposals and final momenta, (C, dim), acceptance, (C,), and u_t of each turn.

    Source: Duane et al. (1987); jitter: Hoffman, Radul, Sountsov (2021), section 3.
    """
    trajectory, decide, most = batched.repeat(leapfrog, 3), batched.fuse(level), 2**plan.max_tree_depth

    def transition(chains: Chains, tuned: Tuned, turn: int) -> tuple[Chains, dict[str, Tensor]]:
        factor = tuned.metric.factor
        steps, share = jittered(turn, tuned, most)
        step = _equal(tuned.step_size, chains.x.dtype, chains.log_prob.shape, chains.x.device)[:, None]
        n = normal(chains.x.shape, generator, chains.x)
        u = uniform(generator, chains)
        slope = whiten(factor, chains.grad, fused=False)
        x, m, _, grad, log_prob = trajectory(steps, chains.x, n, slope, step, factor)
        old = chains.x, chains.log_prob, chains.grad
        *now, energy, error, accept_prob, diverging = decide(*old, n, x, log_prob, grad, m, u)
        if observe is not None:
            observe(chains.x, x, m, accept_prob, share)
        return Chains(*now), statistics(now[1], energy, error, accept_prob, diverging, steps, most, tuned)

    return transition


def jittered(turn: int, tuned: Tuned, most: int) -> tuple[int, float]:
    """How many steps this turn's trajectory takes, and its share u_t of the length."""
    share = 2 * ((turn + 1) * GOLDEN % 1.0)
    return max(1, min(most, math.ceil(share * tuned.length / tuned.step_size))), share


def statistics(
    log_prob: Tensor,
    energy: Tensor,
    error: Tensor,
    accept_prob: Tensor,
    diverging: Tensor,
    steps: int,
    most: int,
    tuned: Tuned,
) -> dict[str, Tensor]:
    """What is reported of a transition of equal length for all chains, by ArviZ's names."""
    return {
        "lp": log_prob,
        "energy": energy,
        "energy_error": error,
        "acceptance_rate": accept_prob,
        "diverging": diverging,
        "n_steps": _equal(steps, torch.int32, error.shape, error.device),
        "tree_depth": _equal(math.ceil(math.log2(steps + 1)), torch.int32, error.shape, error.device),
        "reached_max_treedepth": _equal(steps >= most, torch.bool, error.shape, error.device),
        "step_size": _equal(tuned.step_size, error.dtype, error.shape, error.device),
    }


@lru_cache(maxsize=256)
def _equal(value: float, dtype: torch.dtype, shape: torch.Size, device: torch.device) -> Tensor:
    """One number for all chains; nobody writes into it."""
    return torch.full(shape, value, dtype=dtype, device=device)


def level(_: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Metropolis' test where the energy is that of momenta and position, -log p + |n|^2 / 2.

    tensors: x, log density, gradient and momenta of the old and of the new point, and uniform numbers.
    """
    *old, n, new_x, new_log_prob, new_grad, new_n, u = tensors
    before = 0.5 * n.square().sum(1) - old[1]  # (C,)
    after = 0.5 * new_n.square().sum(1) - new_log_prob
    return metropolis(_, *old, new_x, new_log_prob, new_grad, before, after, u)


def metropolis(_: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Accept each chain's proposal with probability min(1, exp(before - after)).

    tensors: x, log density and gradient of the old and of the new point, both energies, and uniform numbers.
    Returns: the three of the chains now, then lp's companions energy, energy_error, acceptance_rate, diverging.
    """
    x, log_prob, grad, new_x, new_log_prob, new_grad, before, after, u = tensors
    error = torch.where(after.isfinite(), after - before, torch.inf)  # (C,)
    accept_prob = (-error).exp().clamp(max=1.0)
    accept = u < accept_prob
    return (
        torch.where(accept[:, None], new_x, x),
        torch.where(accept, new_log_prob, log_prob),
        torch.where(accept[:, None], new_grad, grad),
        torch.where(accept, after, before),
        torch.where(accept, error, 0.0),
        accept_prob,
        error > DIVERGED,
    )
