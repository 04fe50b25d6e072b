"""What the M step of a Gaussian readout needs of a path, whatever the law of the path."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppmodels.population._readings import Readings

FLOOR = 1e-6  # least noise variance, as a share of the neurons' mean variance


@dataclass(frozen=True)
class ReadoutMoments:
    """Sums over trials and bins, of the path with a one behind it, z~ = (z, 1), and of y less an origin.

    square (N or 1, P + 1, P + 1): of z~ z~'. product (N, P + 1): of y z~. total (N,): of y^2. count, variance, origin
    (N,): bins, and the values' own variance.
    """

    square: Tensor
    product: Tensor
    total: Tensor
    count: Tensor
    variance: Tensor
    origin: Tensor

    @classmethod
    def of(cls, mean: Tensor, readings: Readings, spread: Tensor) -> "ReadoutMoments":
        """Return the sums over what was seen, for means (R, T, P) and `spread_seen`."""
        values, sums = readings.values.flatten(0, 1), readings.sums
        design = torch.nn.functional.pad(mean, (0, 1), value=1.0).flatten(0, 1)  # (R T, P + 1)
        if readings.seen is None:
            square = (design.mT @ design)[None]
        else:
            each = (design[:, :, None] * design[:, None, :]).flatten(1)
            square = (readings.seen.to(values).flatten(0, 1).mT @ each).unflatten(-1, (design.shape[1],) * 2)
        product = (design.mT @ values).mT - sums.origin[:, None] * square[..., -1]
        square = square + torch.nn.functional.pad(spread, (0, 1, 0, 1))
        return cls(square, product, *sums.together, sums.origin)

    def maximise(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return C, d and the noise's variances of the highest expected log likelihood."""
        if len(self.square) == 1:  # one matrix for all neurons
            weights = torch.linalg.solve(self.square[0], self.product.mT).mT  # (N, P + 1)
        else:
            weights = torch.linalg.solve(self.square, self.product[..., None])[..., 0]
        misfit = (self.total - (weights * self.product).sum(-1)) / self.count
        return weights[:, :-1], self.origin + weights[:, -1], misfit.clamp_min(FLOOR * self.variance.mean())

    def expected_log_prob(self, system: Any) -> Tensor:
        """Return E log p(y | path), (), of a readout by loading (N, P), offset (N,) and noise variances (N,)."""
        weights = torch.cat([system.loading, (system.offset - self.origin)[:, None]], -1)  # (N, P + 1)
        fit = (weights[:, None, :] @ self.square @ weights[..., None])[:, 0, 0]
        misfit = self.total - 2 * (weights * self.product).sum(-1) + fit
        return -0.5 * (misfit / system.noise + self.count * (2 * math.pi * system.noise).log()).sum()


def spread_seen(cov: Tensor, readings: Readings) -> Tensor:
    """Return covariances (R or 1, T, P, P) summed over the bins where each neuron was seen, (N or 1, P, P)."""
    if readings.seen is None:
        return cov.sum((0, 1))[None] * (len(readings.values) / len(cov))
    flat = readings.seen.to(cov).flatten(0, 1)
    return (flat.mT @ cov.flatten(0, 1).flatten(1)).unflatten(-1, cov.shape[-2:])
