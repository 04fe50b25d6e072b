"""Hamiltonian Monte Carlo with a jittered trajectory, the same for all chains, so that they keep step.

Chains of one batch take the same number of leapfrog steps: nothing waits, and nothing is masked.
"""

import math

import torch
from torch import Tensor

from inference.density import Batched
from inference.mcmc.chains import Chains, Kernel, Tuned, leapfrog, normal, uniform
from inference.mcmc.metric import whiten
from inference.mcmc.plan import Plan

DIVERGED = 1000.0  # an energy error beyond which a trajectory has left the level set
GOLDEN = (math.sqrt(5) - 1) / 2


def kernel(batched: Batched, generator: torch.Generator, plan: Plan) -> Kernel:
    """Return the transition: fresh momenta, L leapfrog steps, one Metropolis test.

    L = ceil(u_t length / step_size), u_t on (0, 2) a golden-ratio sequence: low discrepancy instead of luck.

    Source: Duane et al. (1987); jitter: Hoffman, Radul, Sountsov (2021), section 3.
    """
    step_once, max_steps = batched.fuse(leapfrog), 2**plan.max_tree_depth

    def transition(chains: Chains, tuned: Tuned, turn: int) -> tuple[Chains, dict[str, Tensor]]:
        factor, share = tuned.metric.factor, 2 * ((turn + 1) * GOLDEN % 1.0)
        steps = max(1, min(max_steps, math.ceil(share * tuned.length / tuned.step_size)))
        step = torch.full_like(chains.log_prob, tuned.step_size)[:, None]
        n = normal(chains.x.shape, generator, chains.x)
        before = 0.5 * n.square().sum(1) - chains.log_prob  # (C,)
        x, whitened = chains.x, whiten(factor, chains.grad)
        log_prob, grad = chains.log_prob, chains.grad
        for _ in range(steps):
            x, n, whitened, grad, log_prob = step_once(x, n, whitened, step, factor)
        after = 0.5 * n.square().sum(1) - log_prob
        return metropolis(chains, Chains(x, log_prob, grad), before, after, steps, tuned, generator, max_steps)

    return transition


def metropolis(
    old: Chains,
    new: Chains,
    before: Tensor,
    after: Tensor,
    steps: int,
    tuned: Tuned,
    generator: torch.Generator,
    limit: int,
) -> tuple[Chains, dict[str, Tensor]]:
    """Accept each chain's proposal with probability min(1, exp(before - after))."""
    error = torch.where(after.isfinite(), after - before, torch.inf)
    accept_prob = (-error).exp().clamp(max=1.0)
    accept = uniform(generator, old) < accept_prob
    keep = accept[:, None]
    chains = Chains(
        torch.where(keep, new.x, old.x),
        torch.where(accept, new.log_prob, old.log_prob),
        torch.where(keep, new.grad, old.grad),
    )
    return chains, {
        "lp": chains.log_prob,
        "energy": torch.where(accept, after, before),
        "energy_error": torch.where(accept, error, 0.0),
        "acceptance_rate": accept_prob,
        "diverging": error > DIVERGED,
        "n_steps": torch.full_like(error, steps, dtype=torch.int32),
        "tree_depth": torch.full_like(error, math.ceil(math.log2(steps + 1)), dtype=torch.int32),
        "reached_max_treedepth": torch.full_like(error, steps >= limit, dtype=torch.bool),
        "step_size": torch.full_like(error, tuned.step_size),
    }
