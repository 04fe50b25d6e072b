"""From a filter's output to a rate: fixed shapes, and one that is learned."""

import math
from typing import Any, Literal

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
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


class Direction(TorchDistribution):
    """Vectors of any direction, all alike, whose length is about one.

    Where a length means nothing a normal law would have its mode at no length at all, and no direction there.
    """

    arg_constraints = {}  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    support = constraints.real_vector  # pyright: ignore
    SPREAD = 0.1  # sd of the logarithm of the length

    def __init__(self, like: Tensor, dim: int, shape: Any = ()) -> None:
        self.like = like
        super().__init__(torch.Size(shape), torch.Size([dim]), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Direction":
        return Direction(self.like, self.event_shape[0], batch_shape)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size((*sample_shape, *self.batch_shape, *self.event_shape))
        way = torch.randn(shape, dtype=self.like.dtype, device=self.like.device)
        length = (self.SPREAD * torch.randn_like(way[..., :1])).exp()
        return length * way / way.norm(dim=-1, keepdim=True)

    def log_prob(self, value: Tensor) -> Tensor:
        half, log_length = self.event_shape[0] / 2, 0.5 * value.square().sum(-1).log()
        sphere = math.log(2) + half * math.log(math.pi) - math.lgamma(half)  # log area of the unit sphere
        normal = -0.5 * (log_length / self.SPREAD).square() - math.log(self.SPREAD * math.sqrt(2 * math.pi))
        return normal - 2 * half * log_length - sphere


def basis(along: Tensor, functions: int, reach: float) -> Tensor:
    """Return Gaussian bumps, equally spaced over (-reach, reach) and as wide as their distance, that add up to one.

    Beyond the reach the outermost is all that is left, so that a sum of them levels off, and smoothly.
    """
    centers = torch.linspace(-1, 1, functions, dtype=along.dtype, device=along.device) * reach
    width = 2 * reach / (functions - 1)
    return (-0.5 * ((along[..., None] - centers) / width).square()).softmax(-1)


def bumps(functions: int, like: Tensor) -> Tensor:
    """Return the Cholesky factor, (J, J), of the prior of the bumps' heights: a line and a smooth departure."""
    place = torch.linspace(-1, 1, functions, dtype=like.dtype, device=like.device)
    gap = place[:, None] - place
    covariance = 4.0 + 4.0 * place[:, None] * place + (-0.5 * (gap / 0.5).square()).exp()
    return torch.linalg.cholesky(covariance + 1e-4 * torch.eye(functions).to(like))
