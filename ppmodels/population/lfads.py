"""LFADS: a recurrent network makes the rates of single trials, started and driven by what is read off the spikes."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppmodels.base import Data, dims
from ppmodels.nn.lfads import Encoder, Generator
from ppmodels.population import _counts
from ppmodels.population._checks import check_counts, check_positive
from ppmodels.population._emissions import describe
from ppmodels.population._gapped import Gapped
from ppmodels.population._inputs import DriftingInputs, InferredInputs


@dataclass(frozen=True)
class LatentFactorDynamics:
    r"""Sequential variational autoencoder (LFADS): each trial's rates come of a start, inputs and a recurrent network.

    .. math:: g_0 \sim N(0, I),\; u_t \sim \mathrm{AR}(1),\; g_t = \mathrm{GRU}(g_{t-1}, u_t),\; f_t = W g_t,\;
        y_t \sim \mathrm{Poisson}(b\, e^{V f_t + d}); \quad q(g_0 \mid y) = N,\; q(u_t \mid y, g_0, u_{1..t-1}) = N

    with b = bin_size. `controls` = 0 leaves inputs out; generator="linear" makes it a linear dynamical system
    without noise. Warm up the divergence by `loss=WeightedELBO(beta=lambda step: min(1, step / 1000))` of svi.

    Latents:  start (R, G), g_0; input (R, T, U), u, no unit.
    Learned:  generator, of states, factors and log rates in Hz; encoder, of q.
    Observed: y (R, T, N), counts in trials of T bins; NaN where nothing was seen, with gaps=True.
    Source:   Pandarinath et al. (2018), Inferring single-trial neural population dynamics, Nature Methods 15.
    """

    neurons: int = 4
    bins: int = 5
    bin_size: float = 0.05  # s
    gaps: bool = False
    state: int = 8  # units of the generator
    factors: int = 2
    controls: int = 1
    hidden: int = 8  # units of the encoder, each way
    generator_kind: Literal["gru", "linear"] = "gru"
    rate: float = 20.0  # Hz, at which neurons begin
    observed: ClassVar[tuple[str, ...]] = ("y",)
    row: ClassVar[str] = "trial"

    def __post_init__(self) -> None:
        check_positive(self, "neurons", "bins", "bin_size", "state", "factors", "hidden", "rate")
        if self.controls < 0 or self.generator_kind not in ("gru", "linear"):
            raise ValueError("controls must be at least 0, and generator_kind gru or linear")

    @classmethod
    def for_data(cls, y: Any, bin_size: float = 0.05, **fields: Any) -> "LatentFactorDynamics":
        """Return the model whose sizes and rate are those of counts y, (R, T, N), in bins of so many seconds."""
        return cls(**{**describe(y, bin_size), **fields})

    @cached_property
    def generator(self) -> Generator:
        """From start and inputs to log rates."""
        sizes = (self.state, self.controls, self.factors, self.neurons)
        return Generator(*sizes, self.generator_kind, math.log(self.rate))

    @cached_property
    def encoder(self) -> Encoder:
        """From spikes to q."""
        return Encoder(self.neurons, self.hidden, self.state, self.controls, self.factors)

    check = check_counts

    def inputs(self, rows: int) -> dict[str, Tensor]:
        return {}

    def model(self, data: Data) -> None:
        pyro.module("generator", self.generator)
        with data.plate():
            start = pyro.sample("start", dist.Normal(torch.zeros(self.state), 1.0).to_event(1), infer=dims("unit"))
            inputs = None
            if self.controls:
                inputs = pyro.sample("input", DriftingInputs(self.generator, self.bins), infer=dims("time", "control"))
            rate = _counts.expected(self.log_rates(start, inputs), self.bin_size)  # (R, T, N)
            pyro.sample("y", Gapped(dist.Poisson(rate), self.gaps), infer=dims("time", "neuron"))

    def guide(self, data: Data) -> None:
        pyro.module("encoder", self.encoder)
        mean, scale, told = self.encoder(data.observed["y"].nan_to_num(0.0))
        with data.plate():
            start = pyro.sample("start", dist.Normal(mean, scale).to_event(1), infer=dims("unit"))
            if self.controls:
                inferred = InferredInputs(self.encoder, self.generator, told, start)
                pyro.sample("input", inferred, infer=dims("time", "control"))

    def log_rates(self, start: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Return log rates in Hz, (..., T, N), of a start (..., G) and inputs (..., T, U)."""
        return self.generator.log_rates(self.generator.states(start, inputs, self.bins))
