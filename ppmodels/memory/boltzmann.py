"""Boltzmann machine: a Hopfield network at a temperature, learned from the states it was seen in."""

from dataclasses import dataclass
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppmodels.base import Data, dims
from ppmodels.memory._ising import LARGEST, Ising
from ppmodels.memory.hopfield import Hopfield


@dataclass(frozen=True)
class BoltzmannMachine:
    r"""N visible units of -1 and 1 with symmetric couplings; Z is summed over all 2^N states, so N <= 15.

    .. math:: J_{ij} \sim N(0, c^2),\; b_i \sim N(0, a^2),\;
        p(s_n) = \tfrac1Z \exp\big(\beta (\textstyle\sum_{i<j} J_{ij} s_{ni} s_{nj} + \sum_i b_i s_{ni})\big)

    with c, a, beta = coupling_scale, bias_scale, beta.

    Latents:  coupling (P,), P = N (N - 1) / 2, pairs row by row; bias (N,).
    Observed: s (R, N), each -1 or 1.
    Source:   Ackley, Hinton and Sejnowski (1985), Cognitive Science 9.
    """

    units: int = 5
    beta: float = 1.0
    coupling_scale: float = 0.5
    bias_scale: float = 0.5
    observed: ClassVar[tuple[str, ...]] = ("s",)

    def __post_init__(self) -> None:
        """Check the fields."""
        if not 2 <= self.units <= LARGEST:
            raise ValueError(f"units must be 2 to {LARGEST}, so that all states can be summed; it is {self.units}")
        for name in ("beta", "coupling_scale", "bias_scale"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be positive and finite; it is {getattr(self, name)}")

    def inputs(self, rows: int) -> dict[str, Tensor]:
        return {}

    def model(self, data: Data) -> None:
        pairs = self.units * (self.units - 1) // 2
        with pyro.plate("pairs", pairs, dim=-1):
            coupling = pyro.sample("coupling", dist.Normal(torch.tensor(0.0), self.coupling_scale))
        with pyro.plate("units", self.units, dim=-1):
            bias = pyro.sample("bias", dist.Normal(torch.tensor(0.0), self.bias_scale))
        with data.plate():
            ising = Ising(self.beta * coupling, self.beta * bias)
            pyro.sample("s", ising, infer=dims("units"))

    def network(self, coupling: Tensor, bias: Tensor) -> Hopfield:
        """Return the Hopfield network of these couplings (P,) and biases (N,): its energy, recall and dynamics."""
        weights = coupling.new_zeros(self.units, self.units)
        i, j = torch.triu_indices(self.units, self.units, 1)
        weights[i, j] = weights[j, i] = coupling
        return Hopfield(weights, bias)
