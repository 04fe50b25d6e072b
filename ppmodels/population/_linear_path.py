"""The law of a path that moves linearly with noise, as a distribution over paths."""

import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from ppmodels.population.linear_system import LinearSystem


class LinearPath(TorchDistribution):
    """p(z_1, ..., z_T) of paths (T, P) with Q = I."""

    arg_constraints = {}  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    support = constraints.independent(constraints.real, 2)  # pyright: ignore

    def __init__(self, system: LinearSystem, bins: int, shape: Any = ()) -> None:
        self.system = system
        super().__init__(torch.Size(shape), torch.Size([bins, system.latents]), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "LinearPath":
        return LinearPath(self.system, self.event_shape[0], batch_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        root = torch.linalg.cholesky(self.system.initial_cov)
        first = value[..., :1, :] - self.system.initial_loc
        first = torch.linalg.solve_triangular(root.mT, first, upper=True, left=False)
        steps = value[..., 1:, :] - value[..., :-1, :] @ self.system.dynamics.mT
        size = self.event_shape.numel() * math.log(2 * math.pi) + 2 * root.diagonal().log().sum()
        return -0.5 * (first.square().sum((-2, -1)) + steps.square().sum((-2, -1)) + size)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            return self.system.sample_path(self.event_shape[0], torch.Size((*sample_shape, *self.batch_shape)))
