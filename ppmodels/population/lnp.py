"""Linear-nonlinear-Poisson neuron: one filter, one nonlinearity, Poisson spikes."""

import math
from dataclasses import dataclass
from typing import ClassVar, get_args

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import Poisson
from torch import Tensor

from ppmodels.base import Data, Theta, dims
from ppmodels.population._nonlinearity import Direction, Nonlinearity, bumps, mean_count


@dataclass(frozen=True)
class LinearNonlinearPoisson:
    r"""Linear-nonlinear-Poisson neuron, whose nonlinearity may itself be learned.

    .. math:: k \sim N(0, s^2 I),\; u_t = k^\top x_t + b,\; y_t \sim \mathrm{Poisson}(r \Delta f(u_t))

    with s, r, Delta = scale, rate, bin_size, and f(u) one of exp: :math:`e^u`; softplus: :math:`\log(1 + e^u)`;
    threshold-linear: :math:`\max(u, 0) + c`; sigmoid: :math:`p / (1 + e^{-u})`; learned: exp of a smooth sum of bumps
    :math:`\sum_j g_j \phi_j(u)` of u along k / |k|; then k has any direction and a length about one, and k and -k,
    with f mirrored, are one model. Rows are trials, or blocks of a recording.

    Latents:  weight (D,); bias (), which the learned nonlinearity has not; floor () of the threshold; peak () of the
              sigmoid; gain (J,) of the learned nonlinearity.
    Given:    stimulus (R, T, D), what the neuron sees in each bin, lags laid out; seen (R, T), 0 for missing.
    Observed: counts (R, T).
    Source:   Paninski (2004), Network 15, 243-262; Simoncelli et al. (2004), The Cognitive Neurosciences III, 327-338.
    """

    dim: int = 3
    bin_size: float = 0.01  # seconds
    nonlinearity: Nonlinearity = "exp"
    bumps: int = 8  # of the learned nonlinearity
    reach: float = 3.0  # up to which the bumps cover k'x / |k|
    rate: float = 10.0  # Hz
    scale: float = 1.0  # sd of the filter's weights
    observed: ClassVar[tuple[str, ...]] = ("counts",)

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.nonlinearity not in get_args(Nonlinearity):
            raise ValueError(f"nonlinearity is one of {', '.join(get_args(Nonlinearity))}; not {self.nonlinearity!r}")
        if self.dim < 1 or self.bumps < 3:
            raise ValueError(f"dim is at least 1 and bumps at least 3; they are {self.dim} and {self.bumps}")
        for name in ("bin_size", "rate", "scale", "reach"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite; it is {getattr(self, name)}")

    def inputs(self, rows: int) -> dict[str, Tensor]:
        return {"stimulus": torch.randn(rows, 50, self.dim), "seen": torch.ones(rows, 50)}

    def model(self, data: Data) -> None:
        x = data.given["stimulus"]
        zero, kind = x.new_zeros(()), self.nonlinearity
        law = dist.Normal(x.new_zeros(self.dim), self.scale).to_event(1)
        law = Direction(x, self.dim) if kind == "learned" else law
        theta = {"weight": pyro.sample("weight", law, infer=dims("feature"))}
        if kind == "learned":
            smooth = dist.MultivariateNormal(x.new_zeros(self.bumps), scale_tril=bumps(self.bumps, x))
            theta["gain"] = pyro.sample("gain", smooth, infer=dims("bump"))
        else:
            theta["bias"] = pyro.sample("bias", dist.Normal(zero, 1.0))
        if kind == "threshold-linear":
            theta["floor"] = pyro.sample("floor", dist.LogNormal(zero - 2.0, 1.0))
        if kind == "sigmoid":
            theta["peak"] = pyro.sample("peak", dist.LogNormal(zero + 1.0, 1.0))
        with data.plate():
            counts = Poisson(self.mean(theta, x)).mask(data.given["seen"] > 0).to_event(1)
            pyro.sample("counts", counts, infer=dims("time"))

    def mean(self, theta: Theta, stimulus: Tensor) -> Tensor:
        """Return the mean count of every bin, (R, T), of a stimulus (R, T, D)."""
        return self.rate * self.bin_size * mean_count(self.nonlinearity, theta, stimulus, self.reach)
