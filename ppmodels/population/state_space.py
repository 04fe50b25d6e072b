"""Gaussian linear dynamical system: what many neurons do follows a hidden path of few dimensions."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import Distribution
from torch import Tensor

from ppmodels.base import Data, Theta, dims
from ppmodels.population._ascent import ascend
from ppmodels.population._checks import check_positive, check_values, describe
from ppmodels.population._linear_gaussian import LinearGaussian
from ppmodels.population._readings import Readings
from ppmodels.population._smoothing import smooth
from ppmodels.population._system_maximise import Expected, expect, maximise
from ppmodels.population._system_sites import check_system, sample_system, system_of, system_priors, theta_of
from ppmodels.population._system_start import start
from ppmodels.population.kalman import Smoothed


@dataclass(frozen=True)
class GaussianStateSpace:
    r"""Linear dynamics of P latents, read out linearly by N neurons with Gaussian noise; the path is summed out.

    .. math:: z_1 \sim N(m_0, V_0),\; z_{t+1} \sim N(A z_t, I),\; y_t \sim N(C z_t + d, \mathrm{diag}(r)^2)

    with A, C, d, r = dynamics, loading, offset, noise. Latents are known up to an invertible map only; here C is
    lower triangular, of `loading_diagonal` and `loading_below` row by row; so is V_0's Cholesky factor, of
    `initial_scale` and `initial_below`, or V_0 = I with initial="innovation", which few trials need.

    Latents:  dynamics (P, P); initial_loc (P,); initial_scale (P,); initial_below (L,), L = P (P - 1) / 2;
              loading_diagonal (P,), loading_below (M,), M = N * P - P (P + 1) / 2, and offset (N,), noise (N,),
              unit of y; loading (N, P) computed.
    Observed: y (R, T, N), trials of T bins; NaN where nothing was seen, with gaps=True.
    Source:   Bishop (2006), section 13.3; Shumway and Stoffer (1982), J. Time Series Analysis 3, for EM.
    """

    neurons: int = 4
    latents: int = 2
    bins: int = 8
    gaps: bool = False
    initial: Literal["free", "innovation"] = "free"
    center: tuple[float, ...] = (0.0,)  # one a neuron, or one for all
    scale: tuple[float, ...] = (1.0,)
    noise_scale: float = 0.5  # median of noise over scale
    observed: ClassVar[tuple[str, ...]] = ("y",)
    row: ClassVar[str] = "trial"

    def __post_init__(self) -> None:
        check_positive(self, "bins", "noise_scale")
        check_system(self)

    @classmethod
    def for_data(cls, y: Any, **fields: Any) -> "GaussianStateSpace":
        """Return the model whose sizes, center and scale are those of y, (R, T, N)."""
        return cls(**{**describe(y), **fields})

    def inputs(self, rows: int) -> dict[str, Tensor]:
        return {}

    def model(self, data: Data) -> None:
        system = sample_system(self, self._priors())
        with data.plate():
            pyro.sample("y", LinearGaussian(system, self.bins, self.gaps), infer=dims("time", "neuron"))

    check = check_values

    def start(self, data: Data) -> Theta:
        return theta_of(self, start(data.observed["y"], self.latents, self.initial))

    def e_step(self, theta: Theta, data: Data) -> tuple[Expected, Tensor]:
        return expect(system_of(self, theta), Readings.kept(data.observed["y"], self.gaps), theta)

    def m_step(self, q: Expected, data: Data, prior: bool) -> Theta:
        if prior:
            return ascend(lambda theta: self._expected(q, theta), q.theta, self._priors())
        return theta_of(self, maximise(q, self.initial))

    def bound(self, q: Expected, theta: Theta, data: Data) -> Tensor:
        return self._expected(q, theta) + q.entropy

    def path(self, theta: Theta, data: Data) -> Smoothed:
        """Return the posterior of each trial's path, (R, T, P), at one value of the sites."""
        return smooth(system_of(self, theta), Readings.of(data.observed["y"], self.gaps)).moments()

    def _expected(self, q: Expected, theta: Theta) -> Tensor:
        system = system_of(self, theta)
        return q.path.expected_log_prob(system) + q.readout.expected_log_prob(system)

    def _priors(self) -> dict[str, Distribution]:
        noise = torch.tensor(self.scale).expand(self.neurons) * self.noise_scale
        return {**system_priors(self), "noise": dist.LogNormal(noise.log(), 0.7).to_event(1)}
