"""The distribution exp(-E) / Z over states of -1 and 1, with Z summed over all of them."""

import math
from functools import lru_cache
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

LARGEST = 15  # units, of which all 2^N states are summed


class _Signs(constraints.Constraint):
    """Vectors of -1 and 1."""

    is_discrete = True
    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return (value.abs() == 1).all(-1)


signs = _Signs()


class Ising(TorchDistribution):
    r"""p(s) proportional to :math:`\exp(\sum_{i<j} J_{ij} s_i s_j + \sum_i b_i s_i)`, s in {-1, 1}^N.

    An exponential family: its log density is features times parameters, minus log Z.

    coupling: J of each pair i < j, row by row, (P,). bias: b (N,).
    """

    arg_constraints = {"coupling": constraints.real_vector, "bias": constraints.real_vector}  # type: ignore[assignment]
    support = signs  # type: ignore[assignment]

    def __init__(self, coupling: Tensor, bias: Tensor, shape: Any = (), validate_args: Any = None) -> None:
        self.coupling, self.bias = coupling, bias
        super().__init__(torch.Size(shape), bias.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Ising":
        return Ising(self.coupling, self.bias, batch_shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        return features(value) @ self.parameters - self.log_partition()

    @property
    def parameters(self) -> Tensor:
        """Biases and couplings in one vector, (N + P,)."""
        return torch.cat([self.bias, self.coupling], -1)

    def log_partition(self) -> Tensor:
        """Return log Z, ()."""
        return (self._table() @ self.parameters).logsumexp(-1)

    def moments(self) -> Tensor:
        """Return E s, then E s_i s_j of each pair, (N + P,): the gradient of log Z."""
        table = self._table()
        return (table @ self.parameters).softmax(-1) @ table

    def sample(self, sample_shape: Any = ()) -> Tensor:
        table, shape = self._table(), torch.Size((*sample_shape, *self.batch_shape))
        with torch.no_grad():
            weight = (table @ self.parameters).softmax(-1)  # (2^N,)
            drawn = torch.multinomial(weight, math.prod(shape), replacement=True)
        return table[drawn, : self.event_shape[0]].reshape(*shape, *self.event_shape)

    def _table(self) -> Tensor:
        """Features of all states, (2^N, N + P)."""
        return all_features(self.event_shape[0]).to(self.bias)


def features(state: Tensor) -> Tensor:
    """Return s, then s_i s_j of each pair i < j, (..., N + P)."""
    i, j = torch.triu_indices(state.shape[-1], state.shape[-1], 1, device=state.device)
    return torch.cat([state, state[..., i] * state[..., j]], -1)


@lru_cache(maxsize=4)
def all_features(units: int) -> Tensor:
    """Return the features of all 2^N states, (2^N, N + P)."""
    states = torch.arange(2**units)[:, None] >> torch.arange(units) & 1
    return features(2.0 * states.double() - 1)
