"""Coupled population: each neuron is driven by a stimulus, by its own spikes and by those of all others."""

from dataclasses import dataclass
from typing import ClassVar

import pyro
import torch
from torch import Tensor

from ppmodels.base import Data, Theta, dims
from ppmodels.population import _fields, _newton, _one_neuron, _priors
from ppmodels.population._law import Law, Link, Observation
from ppmodels.population._self_driven import PopulationCounts
from ppmodels.population._windows import Window, Windows, windows
from ppmodels.population.basis import Family


@dataclass(frozen=True)
class CoupledGLM:
    r"""Generalised linear model of a population, with stimulus, history and coupling filters.

    .. math:: \eta_{tn} = b_n + \sum_d (k_{nd} * s_d)_t + (h_n * y_n)_{t-1} + \sum_{m \ne n} (c_{nm} * y_m)_{t-1},\;
        y_{tn} \sim \mathrm{Poisson}(\Delta\, e^{\eta_{tn}})

    or another link and law. A filter is a weighted sum of orthonormal functions of mean square one over its window;
    rows are trials, or blocks of a recording. Given the data the neurons' posteriors are independent.

    Latents:  baseline (N,), log Hz for exp; stimulus_weight (N, D, A); history_weight (N, H);
              coupling_weight (N, M, K), M = N - 1, from each other neuron, or coupling_z (N, M, K) with their
              scales; dispersion (N,) of the negative binomial. With `lags` the filters too:
              stimulus_filter (N, D, B); history_filter (N, L); coupling_filter (N, N, L), onto the first.
    Given:    stimulus (R, C, D), C = T + B - 1; past (R, L, N), counts before; seen (R, T, N), 0 for missing.
    Observed: counts (R, T, N).
    Source:   Truccolo et al. (2005), J. Neurophysiology 93; Pillow et al. (2008), Nature 454, 995-999.
    """

    neurons: int = 2
    stimuli: int = 1
    bin_size: float = 0.01  # seconds
    stimulus: Window = (3, 0.05)  # basis functions and seconds, from lag 0; (0, 0.0): the present bin alone
    history: Window = (3, 0.05)  # from lag 1; (0, 0.0): none
    coupling: Window = (2, 0.05)
    basis: Family = "log-cosine"
    observation: Observation = "poisson"
    link: Link = "exp"
    filters: _priors.FilterPrior = "ridge"  # prior of stimulus and history filters
    couplings: _priors.CouplingPrior = "ridge"
    scale: float = 0.2  # sd of a filter's weights, in units of the drive
    rate: float = 5.0  # Hz, about which the prior of the baselines lies
    spread: float = 1.0  # sd of the baselines
    lags: bool = True  # whether draws also hold the filters lag by lag, N^2 L numbers
    ceiling: float = 1000.0  # Hz at which a simulation is cut: to come there is to run away
    observed: ClassVar[tuple[str, ...]] = ("counts",)

    __post_init__ = _fields.check
    data = _fields.data
    peak = _newton.peak
    parts, join = _one_neuron.parts, _one_neuron.join

    @property
    def law(self) -> Law:
        """How counts follow from the drive."""
        return Law(self.observation, self.link, self.bin_size, self.rate)

    def windows(self, like: Tensor) -> Windows:
        """Return the bases in bins, in the dtype of `like`."""
        return windows(self.basis, self.bin_size, self.stimulus, self.history, self.coupling, like)

    def inputs(self, rows: int) -> dict[str, Tensor]:
        bins, own = 30, self.windows(torch.empty(0))
        given = {"stimulus": torch.randn(rows, bins + own.lead, self.stimuli)}
        given["past"] = torch.zeros(rows, own.past, self.neurons)
        return given | {"seen": torch.ones(rows, bins, self.neurons)}

    def model(self, data: Data) -> None:
        with pyro.plate("post", self.neurons, dim=-1):
            theta = self.latents(self.windows(data.given["stimulus"]))
        with data.plate():
            pyro.sample("counts", self.population(theta, data), infer=dims("time", "neuron"))
        if self.lags:
            _fields.keep_filters(theta, self.windows(data.given["stimulus"]))

    def latents(self, own: Windows) -> Theta:
        """Sample the latents of one neuron; in a plate, of all."""
        return _priors.latents(self, own)

    def population(self, theta: Theta, data: Data) -> PopulationCounts:
        """Return the law of the counts at these weights."""
        return _fields.population(self, theta, data)

    def with_filters(self, theta: Theta) -> Theta:
        """Return the weights, (..., N, functions), and where draws are to hold them the filters, lag by lag."""
        return theta | (self.filters_in_time(theta) if self.lags else {})

    def filters_in_time(self, theta: Theta) -> Theta:
        """Return the filters lag by lag: stimulus_filter, history_filter, coupling_filter."""
        return _fields.filters(theta, self.windows(theta["baseline"]))
