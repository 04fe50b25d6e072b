"""Trials of a linear dynamical system with Gaussian readout, its path summed out."""

from typing import Any

import torch
from torch import Tensor

from ppmodels.population._gapped import TrialDistribution
from ppmodels.population._readings import Readings
from ppmodels.population._smoothing import smooth
from ppmodels.population.linear_system import LinearSystem


class LinearGaussian(TrialDistribution):
    """p(y) of trials (T, N): y_t ~ N(C z_t + d, R) along a path that moves linearly."""

    def __init__(self, system: LinearSystem, bins: int, gaps: bool = False) -> None:
        super().__init__(bins, len(system.offset), gaps)
        self.system = system

    def log_prob(self, value: Tensor) -> Tensor:
        trials = value.reshape(-1, *self.event_shape)
        return (
            smooth(self.system, Readings.of(trials, self.gaps))
            .log_likelihood.expand(len(trials))
            .reshape(value.shape[:-2])
        )

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape, system = torch.Size((*sample_shape, *self.batch_shape)), self.system
        assert system.noise is not None
        with torch.no_grad():
            mean = system.sample_path(self.event_shape[0], shape) @ system.loading.mT + system.offset
            return mean + system.noise.sqrt() * torch.randn_like(mean)
