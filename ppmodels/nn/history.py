"""Follow a signal's past: the coefficients of its history on an orthonormal basis, sample by sample."""

from itertools import pairwise

import torch
from torch import Tensor

from ppmodels.nn.discretise import bilinear
from ppmodels.nn.hippo import transition


def track(signal: Tensor, states: int, measure: str = "legs", window: int = 1) -> Tensor:
    r"""Coefficients of the past at every sample, by the trapezoidal rule.

    With `legs`, :math:`\dot c = (A c + B f)/t` does not depend on the sampling step: t counts samples.
    It is exact for a signal that is linear in t, and of second order for every other.

    signal: samples at t = 0, 1, ..., (T, ...).
    window: samples in the window of `legt` and `fout`; `legs` looks at the whole past.
    Returns: (T, ..., N).
    Raises: ValueError when the signal is empty.
    """
    if len(signal) == 0:
        raise ValueError("the signal is empty")
    a, b = (x.to(signal) for x in transition(measure, states))
    if measure == "legs":
        return _whole_past(signal, a, b)
    return _sliding(signal, a, b, 1.0 / window)


def basis(points: Tensor, states: int, measure: str = "legs") -> Tensor:
    """Orthonormal functions on [0, 1], oldest to newest, whose sum by the coefficients is the past.

    points: (X,). Returns: (X, N).
    """
    if measure == "fout":
        phase = 2 * torch.pi * (1 - points)[:, None] * torch.arange(states // 2).to(points)
        values = 2**0.5 * torch.stack([phase.cos(), phase.sin()], -1).flatten(-2)  # (X, N)
        values[:, 0] = 1.0
        return values
    return _legendre(2 * points - 1, states) * (2 * torch.arange(states).to(points) + 1).sqrt()


def _whole_past(signal: Tensor, a: Tensor, b: Tensor) -> Tensor:
    identity = torch.eye(len(a)).to(a)
    state = signal[0, ..., None] * identity[0]  # the mean of one value is that value
    coefficients = [state]
    # 0/0 at t = 0: by l'Hôpital the slope is (I - A)^-1 B f'(0).
    slope = torch.linalg.solve(identity - a, b)
    for t in range(1, len(signal)):
        if t == 1:
            state = state + (signal[1] - signal[0])[..., None] * slope
        else:
            before = (state @ a.mT + signal[t - 1, ..., None] * b) / (t - 1)
            right = state + (before + signal[t, ..., None] * b / t) / 2  # (..., N)
            left = identity - a / (2 * t)
            state = torch.linalg.solve_triangular(left.mT, right[..., None, :], upper=True, left=False)[..., 0, :]
        coefficients.append(state)
    return torch.stack(coefficients)


def _sliding(signal: Tensor, a: Tensor, b: Tensor, step: float) -> Tensor:
    a_bar, b_bar = bilinear(a, b, step)
    identity = torch.eye(len(a)).to(a)
    state = signal[0, ..., None] * identity[0]  # as if the signal had always been its first value
    coefficients = [state]
    for before, now in pairwise(signal):
        state = state @ a_bar.mT + ((before + now) / 2)[..., None] * b_bar
        coefficients.append(state)
    return torch.stack(coefficients)


def _legendre(x: Tensor, states: int) -> Tensor:
    """P_0 ... P_{N-1} at x by Bonnet's recursion, (X, N)."""
    values = [torch.ones_like(x), x]
    for n in range(1, states - 1):
        values.append(((2 * n + 1) * x * values[n] - n * values[n - 1]) / (n + 1))
    return torch.stack(values[:states], -1)
