"""Metropolis-adjusted microcanonical sampling: particles of constant speed, turned but never sped up by the slope.

Like HMC here, all chains take the same number of steps, so that they keep step.
"""

import math
from typing import Any

import torch
from torch import Tensor

from inference.base import Unsupported
from inference.density import Batched
from inference.mcmc.chains import Chains, Kernel, Tuned, normal, uniform
from inference.mcmc.hmc import jittered, metropolis, statistics
from inference.mcmc.metric import spread, whiten
from inference.mcmc.plan import Plan


def kernel(batched: Batched, generator: torch.Generator, plan: Plan) -> Kernel:
    """Return the transition: fresh directions, L isokinetic leapfrog steps, one Metropolis test.

    The speed in standard coordinates is sqrt(dim), a standard normal momentum's, so that step size and length mean
    what they mean to HMC. A step's error is W = (kinetic work) - (change of log density), and a trajectory is
    accepted with probability min(1, exp(-sum W)). There is no energy to resample: the one reported is -lp.

    Raises: Unsupported when the model has a single coordinate, in which nothing can turn.
    Source: Robnik, Cohn-Gordon, Seljak (2025), Metropolis adjusted microcanonical Hamiltonian Monte Carlo.
    """
    trajectory, decide, most = batched.repeat(isokinetic, 4), batched.fuse(metropolis), 2**plan.max_tree_depth

    def transition(chains: Chains, tuned: Tuned, turn: int) -> tuple[Chains, dict[str, Tensor]]:
        dim, factor = chains.x.shape[1], tuned.metric.factor
        if dim < 2:
            raise Unsupported("mams needs a model of at least two coordinates; use nuts or hmc")
        steps, _ = jittered(turn, tuned, most)
        step = torch.full_like(chains.log_prob, tuned.step_size * math.sqrt(dim))[:, None]
        direction = normal(chains.x.shape, generator, chains.x)
        x, v, work = chains.x, direction / direction.norm(dim=1, keepdim=True), torch.zeros_like(chains.log_prob)
        slope = whiten(factor, chains.grad, fused=False)
        x, _, _, work, grad, log_prob = trajectory(steps, x, v, slope, work, step, factor)
        u, before, after = uniform(generator, chains), -chains.log_prob, work - log_prob
        old = chains.x, chains.log_prob, chains.grad
        *now, _, error, accept_prob, diverging = decide(*old, x, log_prob, grad, before, after, u)
        return Chains(*now), statistics(now[1], -now[1], error, accept_prob, diverging, steps, most, tuned)

    return transition


def isokinetic(
    value_and_grad: Any, x: Tensor, v: Tensor, whitened: Tensor, work: Tensor, step: Tensor, factor: Tensor
) -> tuple[Tensor, ...]:
    """One leapfrog step of every chain at unit speed: x, v and F^T grad, each (C, dim), step (C, 1), work (C,).

    Returns: x, v, F^T grad, work, grad and log density afterwards.
    """
    v, first = _turn(v, whitened, 0.5 * step)
    x = x + step * spread(factor, v)
    log_prob, grad = value_and_grad(x)
    whitened = whiten(factor, grad)
    v, second = _turn(v, whitened, 0.5 * step)
    return x, v, whitened, work + first + second, grad, log_prob


def _turn(v: Tensor, force: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """Turn unit velocities, (C, dim), towards the force for a time, (C, 1); and the kinetic work of it, (C,).

    With e = force / |force|, d = time |force| / (dim - 1): v' = (v + e (sinh d + (e.v) (cosh d - 1))) / s and work
    (dim - 1) log s, s = cosh d + (e.v) sinh d; here times 2 exp(-d), which cannot overflow.
    """
    size, freedom = force.norm(dim=1, keepdim=True), v.shape[1] - 1  # (C, 1)
    e = torch.where(size > 0, force / size, 0.0)
    d, along = time * size / freedom, (e * v).sum(1, keepdim=True)
    z = (-d).exp()
    turned = 2 * z * v + e * (1 - z) * (1 + z + along * (1 - z))
    work = freedom * (d - math.log(2) + torch.log(1 + along + (1 - along) * z.square()))
    return turned / turned.norm(dim=1, keepdim=True), work[:, 0]
