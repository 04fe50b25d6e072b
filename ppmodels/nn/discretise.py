"""From a continuous linear system to its samples: four rules for x' = A x + B u."""

import torch
from torch import Tensor


def bilinear(a: Tensor, b: Tensor, step: Tensor | float) -> tuple[Tensor, Tensor]:
    r"""Trapezoidal rule, Tustin's: error of third order a step, stable at every step.

    .. math:: \bar A = (I - \Delta A/2)^{-1} (I + \Delta A/2),\quad \bar B = (I - \Delta A/2)^{-1} \Delta B

    a: (..., N, N). b: (..., N). step: Delta, a number or (...).
    Returns: A bar (..., N, N), B bar (..., N).
    """
    identity, a_step, b_step = _scaled(a, b, step)
    both = torch.cat([identity + a_step / 2, b_step[..., None]], -1)  # (..., N, N + 1)
    solved = torch.linalg.solve(identity - a_step / 2, both)
    return solved[..., :-1], solved[..., -1]


def zero_order_hold(a: Tensor, b: Tensor, step: Tensor | float) -> tuple[Tensor, Tensor]:
    r"""Exact for an input that is constant over each step; A may be singular.

    .. math:: \bar A = e^{\Delta A},\quad \bar B = \int_0^\Delta e^{sA} ds\, B
    """
    _, a_step, b_step = _scaled(a, b, step)
    top = torch.cat([a_step, b_step[..., None]], -1)  # (..., N, N + 1)
    solved = torch.linalg.matrix_exp(torch.cat([top, torch.zeros_like(top[..., :1, :])], -2))
    return solved[..., :-1, :-1], solved[..., :-1, -1]


def forward_euler(a: Tensor, b: Tensor, step: Tensor | float) -> tuple[Tensor, Tensor]:
    """A bar = I + Delta A: error of second order a step, and unstable when the step is long."""
    identity, a_step, b_step = _scaled(a, b, step)
    return identity + a_step, b_step


def backward_euler(a: Tensor, b: Tensor, step: Tensor | float) -> tuple[Tensor, Tensor]:
    """A bar = (I - Delta A)^-1: error of second order a step, stable, but it damps what should not be."""
    identity, a_step, b_step = _scaled(a, b, step)
    both = torch.cat([identity, b_step[..., None]], -1)
    solved = torch.linalg.solve(identity - a_step, both)
    return solved[..., :-1], solved[..., -1]


def diagonal(a: Tensor, step: Tensor, method: str = "zoh") -> tuple[Tensor, Tensor]:
    r"""Diagonal systems: the logarithm of each A bar, and what B is multiplied by.

    The logarithm is what a kernel needs, :math:`\bar A^l = e^{l \log \bar A}`.

    a: (..., N). step: broadcasts against it. method: `zoh` or `bilinear`.
    Returns: log A bar (..., N), complex for `bilinear`; B bar / B (..., N).
    Raises: ValueError when there is no such method.
    """
    exponent = a * step
    if method == "zoh":
        # expm1(z)/z loses nothing near 0 and is 1 at 0 itself.
        safe = torch.where(exponent == 0, torch.ones_like(exponent), exponent)
        return exponent, step * torch.where(exponent == 0, torch.ones_like(exponent), torch.expm1(safe) / safe)
    if method == "bilinear":
        ratio = torch.complex(exponent.real, exponent.imag if exponent.is_complex() else 0 * exponent)
        ratio = (1 + ratio / 2) / (1 - ratio / 2)
        tiny = torch.finfo(ratio.real.dtype).tiny
        return torch.log(torch.where(ratio == 0, tiny, ratio)), step / (1 - exponent / 2)
    raise ValueError(f"no discretisation {method!r}; there are: zoh, bilinear")


def _scaled(a: Tensor, b: Tensor, step: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
    step = torch.as_tensor(step, dtype=a.real.dtype, device=a.device)
    identity = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device).expand_as(a)
    return identity, a * step[..., None, None], b * step[..., None]
