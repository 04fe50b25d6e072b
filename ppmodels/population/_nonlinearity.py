"""From a filter's output to a rate: fixed shapes, and one that is learned."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ppmodels.base import Theta

Nonlinearity = Literal["exp", "softplus", "threshold-linear", "sigmoid", "learned"]


def mean_count(kind: str, theta: Theta, stimulus: Tensor, reach: float) -> Tensor:
    """Return f(k'x + b), in units of the reference rate, (..., T), of a stimulus (..., T, D)."""
    weight = theta["weight"]
    if kind == "learned":
        along = stimulus @ (weight / weight.norm())
        return (basis(along, theta["gain"].shape[-1], reach) @ theta["gain"]).exp()
    drive = stimulus @ weight + theta["bias"]
    if kind == "exp":
        return drive.exp()
    if kind == "softplus":
        return softplus(drive)
    if kind == "sigmoid":
        return theta["peak"] * drive.sigmoid()
    return drive.clamp(min=0) + theta["floor"]


def basis(along: Tensor, functions: int, reach: float) -> Tensor:
    """Return Gaussian bumps, equally spaced over (-reach, reach) and as wide as their distance, that add up to one."""
    centers = torch.linspace(-1, 1, functions, dtype=along.dtype, device=along.device) * reach
    width = 2 * reach / (functions - 1)
    return (-0.5 * ((along.clamp(-reach, reach)[..., None] - centers) / width).square()).softmax(-1)


def bumps(functions: int, like: Tensor) -> Tensor:
    """Return the Cholesky factor, (J, J), of the prior of the bumps' heights: a line and a smooth departure."""
    place = torch.linspace(-1, 1, functions, dtype=like.dtype, device=like.device)
    gap = place[:, None] - place
    covariance = 4.0 + 4.0 * place[:, None] * place + (-0.5 * (gap / 0.5).square()).exp()
    return torch.linalg.cholesky(covariance + 1e-4 * torch.eye(functions).to(like))
