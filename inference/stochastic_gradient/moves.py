"""One step of every chain: Langevin's, with or without momentum, in coordinates scaled by a preconditioner.

x = s u with s (dim,) about the posterior's sds, so that a step size is a number without a unit: 1 would be a
posterior variance. Gradients may be estimated from some of the rows.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

BETA1, BETA2 = 0.9, 0.99  # Adam's averages on the climb before the draws


def sgld(density: Callable[[Tensor], Any], *tensors: Tensor) -> tuple[Tensor, ...]:
    """Move x (C, dim) by stochastic gradient Langevin dynamics: du = a/2 grad + sqrt(a T) z.

    tensors: x; momentum v, not used; noise z (C, dim); s (dim,); step size a, friction and temperature T, (3,).
    Returns: x, v, log p (C,) and its gradient (C, dim) at the old x.
    Source: Welling and Teh (2011), ICML, equation 4.
    """
    x, v, z, scale, knobs = tensors
    log_prob, grad = density(x)
    moved = x + scale * (0.5 * knobs[0] * scale * grad + (knobs[0] * knobs[2]).sqrt() * z)
    return moved, v, log_prob, grad


def sghmc(density: Callable[[Tensor], Any], *tensors: Tensor) -> tuple[Tensor, ...]:
    """Move x and v by stochastic gradient HMC: dv = a grad - b v + sqrt(2 b a T) z, du = v.

    b is the friction; with b = 1 this is SGLD with step size 2 a. On a standard normal, u has the variance
    T / (1 - a / (2 (2 - b))): too large by the order of the step, whatever the friction.
    Source: Chen, Fox and Guestrin (2014), ICML, equation 15; Springenberg et al. (2016) for the form.
    """
    x, v, z, scale, knobs = tensors
    log_prob, grad = density(x)
    size, friction, temperature = knobs[0], knobs[1], knobs[2]
    noise = (2 * friction * size * temperature).sqrt()
    v = (1 - friction) * v + size * scale * grad + noise * z
    return x + scale * v, v, log_prob, grad


def climb(density: Callable[[Tensor], Any], *tensors: Tensor) -> tuple[Tensor, ...]:
    """Move x up by one step of Adam: tensors x, its averages m and v, and (rate, m's and v's corrections).

    Returns: x, m, v and log p (C,) at the old x. A chain whose gradient is not finite stays.
    """
    x, first, second, knobs = tensors
    log_prob, grad = density(x)
    grad = torch.where(grad.isfinite().all(-1, keepdim=True), grad, 0.0)
    first = BETA1 * first + (1 - BETA1) * grad
    second = BETA2 * second + (1 - BETA2) * grad.square()
    return x + knobs[0] * first * knobs[1] / ((second * knobs[2]).sqrt() + 1e-8), first, second, log_prob


MOVES = {"sgld": sgld, "sghmc": sghmc}
