"""Gaussian-process factor analysis: smooth latents, each with a timescale of its own, behind many noisy neurons."""

from dataclasses import dataclass
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppmodels.base import Data, Theta, dims
from ppmodels.population import _gp_order, _gp_start
from ppmodels.population._ascent import ascend
from ppmodels.population._checks import check_positive, check_values, describe
from ppmodels.population._gp_expected import Expected
from ppmodels.population._gp_path import ProcessReadout, ProcessTrials, kernels
from ppmodels.population.kalman import Smoothed


@dataclass(frozen=True)
class GaussianProcessFactorAnalysis:
    r"""P latents, each a Gaussian process in time, read out linearly by N neurons; the latents are summed out.

    .. math:: x_p \sim N(0, K_p),\; K_p(t, t') = (1 - \sigma^2)\, e^{-(t - t')^2 / 2 \tau_p^2} + \sigma^2 \delta_{tt'},
        \; y_t \sim N(C x_t + d, \mathrm{diag}(r)^2)

    with tau, C, d, r, sigma^2 = timescale, loading, offset, noise, jitter. Counts come as square roots, by custom.
    Latents are in the order of falling timescales, each of the sign that makes its strong loadings positive.

    Latents:  timescale (P,), s; loading (N, P), offset (N,), noise (N,), unit of y.
    Observed: y (R, T, N), trials of T bins; NaN where nothing was seen, with gaps=True.
    Source:   Yu et al. (2009), Gaussian-process factor analysis, J. Neurophysiology 102, 614-635.
    """

    neurons: int = 4
    latents: int = 2
    bins: int = 5
    bin_size: float = 0.02  # s
    gaps: bool = False
    jitter: float = 1e-3  # sigma^2
    timescale: float = 0.1  # s, the prior's median
    center: tuple[float, ...] = (0.0,)  # one a neuron, or one for all
    scale: tuple[float, ...] = (1.0,)
    noise_scale: float = 0.5  # median of noise over scale
    observed: ClassVar[tuple[str, ...]] = ("y",)
    row: ClassVar[str] = "trial"

    def __post_init__(self) -> None:
        check_positive(self, "neurons", "latents", "bins", "bin_size", "jitter", "timescale", "noise_scale")

    @classmethod
    def for_data(cls, y: Any, bin_size: float = 0.02, **fields: Any) -> "GaussianProcessFactorAnalysis":
        """Return the model whose sizes, center and scale are those of y, (R, T, N), in bins of so many seconds."""
        return cls(**{**describe(y), "bin_size": bin_size, **fields})

    def inputs(self, rows: int) -> dict[str, Tensor]:
        return {}

    def model(self, data: Data) -> None:
        axes, priors = {"timescale": ("latent",), "loading": ("neuron", "latent")}, self._priors()
        theta = {k: pyro.sample(k, law, infer=dims(*axes.get(k, ("neuron",)))) for k, law in priors.items()}
        with data.plate():
            pyro.sample("y", ProcessTrials(self.readout(theta), self.gaps), infer=dims("time", "neuron"))

    check = check_values
    relabel = staticmethod(_gp_order.relabel)

    def start(self, data: Data) -> Theta:
        return self.relabel(_gp_start.start(data.observed["y"], self.latents, self.timescale))

    def e_step(self, theta: Theta, data: Data) -> tuple[Expected, Tensor]:
        q = Expected.of(theta, self.readout(theta), data.observed["y"], self.gaps)
        return q, q.path.log_likelihood.sum()

    def m_step(self, q: Expected, data: Data, prior: bool) -> Theta:
        if prior:
            return ascend(lambda theta: q.log_joint(self.readout(theta)), q.theta, self._priors())
        return q.maximise(self.bin_size, self.jitter)

    def bound(self, q: Expected, theta: Theta, data: Data) -> Tensor:
        return q.log_joint(self.readout(theta)) + q.entropy

    def path(self, theta: Theta, data: Data) -> Smoothed:
        """Return the posterior of each trial's latents, (R, T, P), at one value of the sites."""
        return self.e_step(theta, data)[0].path

    def readout(self, theta: Theta) -> ProcessReadout:
        """Return the processes and their readout at one value of the sites."""
        kernel = kernels(theta["timescale"], self.bins, self.bin_size, self.jitter)
        return ProcessReadout(kernel, theta["loading"], theta["offset"], theta["noise"].square())

    def _priors(self) -> dict[str, Any]:
        center, scale = (torch.tensor(field).expand(self.neurons) for field in (self.center, self.scale))
        timescale = torch.full((self.latents,), self.timescale).log()
        return {
            "timescale": dist.LogNormal(timescale, 0.7).to_event(1),
            "loading": dist.Normal(0.0, 0.7 * scale[:, None].expand(-1, self.latents)).to_event(2),
            "offset": dist.Normal(center, 2.0 * scale).to_event(1),
            "noise": dist.LogNormal((self.noise_scale * scale).log(), 0.7).to_event(1),
        }
