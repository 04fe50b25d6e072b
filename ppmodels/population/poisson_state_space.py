"""Poisson linear dynamical system: spike counts whose log rates follow a hidden path of few dimensions."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyro
import pyro.distributions as dist
from torch import Tensor

from ppmodels.base import Data, Theta, dims
from ppmodels.population import _counts
from ppmodels.population._ascent import ascend
from ppmodels.population._checks import check_choice, check_counts, check_positive
from ppmodels.population._count_expected import Expected
from ppmodels.population._gapped import Gapped
from ppmodels.population._linear_path import LinearPath
from ppmodels.population._poisson_path import count_path
from ppmodels.population._system_sites import check_system, sample_system, system_of, system_priors, theta_of
from ppmodels.population.kalman import Smoothed


@dataclass(frozen=True)
class PoissonStateSpace:
    r"""Linear dynamics of P latents that set the log rates of N neurons; their spikes are counted in bins.

    .. math:: z_1 \sim N(m_0, V_0),\; z_{t+1} \sim N(A z_t, I),\; y_t \sim \mathrm{Poisson}(b\, e^{C z_t + d})

    with A, C, d, b = dynamics, loading, offset, bin_size, in the coordinates of `state_space`. EM's q(z) is
    Gaussian: the best one (variational: the bound climbs), or that at the mode (laplace: it may fall).

    Latents:  dynamics (P, P); initial_loc (P,); initial_scale (P,); initial_below (L,), L = P (P - 1) / 2;
              loading_diagonal (P,), loading_below (M,), M = N * P - P (P + 1) / 2; offset (N,), log Hz; loading (N, P)
              computed; z (R, T, P), the paths.
    Observed: y (R, T, N), counts in trials of T bins; NaN where nothing was seen, with gaps=True.
    Source:   Macke et al. (2011), Empirical models of spiking in neural populations, NIPS 24.
    """

    neurons: int = 4
    latents: int = 2
    bins: int = 5
    bin_size: float = 0.05  # s
    gaps: bool = False
    initial: Literal["free", "innovation"] = "free"
    approximation: Literal["variational", "laplace"] = "variational"  # of EM's E step
    center: tuple[float, ...] = (3.0,)  # log Hz; one a neuron, or one for all
    scale: tuple[float, ...] = (0.5,)
    observed: ClassVar[tuple[str, ...]] = ("y",)
    row: ClassVar[str] = "trial"

    def __post_init__(self) -> None:
        check_positive(self, "bins", "bin_size")
        check_system(self)
        check_choice(self, "approximation", "variational", "laplace")

    @classmethod
    def for_data(cls, y: Any, bin_size: float = 0.05, **fields: Any) -> "PoissonStateSpace":
        """Return the model whose sizes and center are those of counts y, (R, T, N), in bins of so many seconds."""
        return cls(**{**_counts.describe(y, bin_size), **fields})

    def inputs(self, rows: int) -> dict[str, Tensor]:
        return {}

    def model(self, data: Data) -> None:
        system = sample_system(self, system_priors(self))
        with data.plate():
            z = pyro.sample("z", LinearPath(system, self.bins), infer=dims("time", "latent"))
            rate = _counts.expected(z @ system.loading.mT + system.offset, self.bin_size)  # (R, T, N)
            pyro.sample("y", Gapped(dist.Poisson(rate), self.gaps), infer=dims("time", "neuron"))

    check = check_counts

    def start(self, data: Data) -> Theta:
        return theta_of(self, _counts.start(data.observed["y"], self.latents, self.bin_size, self.initial))

    def e_step(self, theta: Theta, data: Data) -> tuple[Expected, Tensor]:
        q = Expected.of(theta, self._path(theta, data), data.observed["y"], self.bin_size, self.gaps)
        return q, q.log_likelihood

    def m_step(self, q: Expected, data: Data, prior: bool) -> Theta:
        if prior:
            return ascend(lambda theta: q.log_joint(system_of(self, theta)), q.theta, system_priors(self))
        return theta_of(self, q.maximise(system_of(self, q.theta), self.initial))

    def bound(self, q: Expected, theta: Theta, data: Data) -> Tensor:
        return q.log_joint(system_of(self, theta)) + q.entropy

    def path(self, theta: Theta, data: Data) -> Smoothed:
        """Return the approximate posterior of each trial's path, (R, T, P), at one value of the sites."""
        return self._path(theta, data).path

    @property
    def approximate(self) -> str:
        return f"{self.approximation} Gaussian q(z)"

    @property
    def climbs(self) -> bool:
        return self.approximation == "variational"  # or EM's objective may fall

    def _path(self, theta: Theta, data: Data) -> Any:
        return count_path(system_of(self, theta), data.observed["y"], self.bin_size, self.gaps, self.climbs)
