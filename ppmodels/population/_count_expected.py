"""What the M step of a Poisson state space needs of the paths."""

import math
from dataclasses import dataclass

from torch import Tensor

from ppmodels.base import Theta
from ppmodels.population._count_readout import CountReadout
from ppmodels.population._poisson_path import CountPath
from ppmodels.population._readings import activity
from ppmodels.population._system_maximise import PathMoments
from ppmodels.population.linear_system import LinearSystem


@dataclass(frozen=True)
class Expected:
    """q of the paths; theta is where it was taken, log_likelihood, entropy () what it says of log p(y) and itself."""

    theta: Theta
    path: PathMoments
    readout: CountReadout
    log_likelihood: Tensor
    entropy: Tensor

    @classmethod
    def of(cls, theta: Theta, found: CountPath, y: Tensor, bin_size: float, gaps: bool) -> "Expected":
        """Sum what was found of y (R, T, N)."""
        active = activity(~y.isnan()) if gaps else None
        numbers = found.path.mean.numel() if active is None else active.sum() * found.path.mean.shape[-1]
        entropy = 0.5 * (numbers * (1 + math.log(2 * math.pi)) - found.log_det.sum())
        moments, readout = PathMoments.of(found.path, active), CountReadout.of(found.path, y, bin_size)
        return cls(theta, moments, readout, found.path.log_likelihood.sum(), entropy)

    def log_joint(self, system: LinearSystem) -> Tensor:
        """Return E log p(y, path), ()."""
        readout = self.readout.expected_log_prob(system.loading, system.offset)
        return self.path.expected_log_prob(system) + readout

    def maximise(self, here: LinearSystem, initial: str) -> LinearSystem:
        """Return the system of the highest expected log density; Newton's method begins at `here`."""
        return LinearSystem(*self.path.maximise(initial), *self.readout.maximise(here.loading, here.offset))
