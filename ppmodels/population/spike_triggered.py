r"""Moments of the stimuli that precede spikes: the average and the covariance, without a model to fit.

For :math:`x \sim N(0, I)` and :math:`y \sim \mathrm{Poisson}(e^{k^\top x + b})`, Stein's lemma makes
:math:`E[y x] / E[y] = k` exact; for :math:`x \sim N(0, \Sigma)` it is :math:`\Sigma k`, and whitening gives k.

Source: Chichilnisky (2001), Network 12, 199-213; Schwartz et al. (2006), Journal of Vision 6(4), 13.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


def spike_triggered_average(stimulus: Tensor, counts: Tensor, center: bool = True) -> Tensor:
    """Return the mean stimulus of a spike, (N, P), less the mean stimulus unless `center` is False.

    stimulus: (T, P); counts: (T, N) or (T,), which gives (P,).

    Raises: ValueError naming the neuron that has no spike.
    """
    x, y = _checked(stimulus, counts)
    average = y.mT @ x / y.sum(0)[:, None]  # (N, P)
    average = average - x.mean(0) if center else average
    return average[0] if counts.ndim == 1 else average


def whitened_average(stimulus: Tensor, counts: Tensor, ridge: float = 0.0) -> Tensor:
    """Return the covariance's inverse times the spike-triggered average, (N, P): for Gaussian stimuli the filter.

    ridge: added to the covariance's diagonal, as a share of its mean.

    Raises: ValueError where the covariance is singular, which a ridge mends.
    """
    average = spike_triggered_average(stimulus, counts)
    covariance = _covariance(stimulus)
    covariance = covariance + ridge * covariance.diagonal().mean() * torch.eye(len(covariance)).to(covariance)
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if int(failed):
        raise ValueError(
            f"the covariance of the {len(covariance)} stimulus columns is singular; give a ridge such as 1e-3"
        )
    return torch.cholesky_solve(average.reshape(-1, len(covariance)).mT, factor).mT.reshape(average.shape)


@dataclass(frozen=True)
class SpikeTriggeredCovariance:
    """Directions along which spikes change the variance of the stimulus.

    covariance: of the stimuli of spikes, (P, P), in units in which all stimuli have the identity.
    eigenvalues: (P,), ascending: below one suppresses variance, above one adds it; 1 where nothing happens.
    filters: (P, P), one a row, in the stimulus's own units, of length one.
    """

    covariance: Tensor
    eigenvalues: Tensor
    filters: Tensor


def spike_triggered_covariance(stimulus: Tensor, counts: Tensor) -> SpikeTriggeredCovariance:
    """Return the covariance of the stimuli of one neuron's spikes, whitened by that of all, and its axes.

    An exponential neuron leaves it at the identity; a quadratic unit shows as one outlying eigenvalue.

    stimulus: (T, P); counts: (T,).
    """
    x, y = _checked(stimulus, counts.reshape(len(counts), -1))
    if y.shape[1] != 1:
        raise ValueError(f"the covariance is of one neuron; counts have {y.shape[1]} columns")
    factor = torch.linalg.cholesky(_covariance(x))
    white = torch.linalg.solve_triangular(factor, (x - x.mean(0)).mT, upper=False).mT  # (T, P)
    weight = y[:, 0] / y.sum()
    mean = weight @ white
    covariance = (white * weight[:, None]).mT @ white - mean[:, None] * mean
    values, vectors = torch.linalg.eigh(covariance)
    filters = torch.linalg.solve_triangular(factor.mT, vectors, upper=True).mT  # x'f = white'v
    return SpikeTriggeredCovariance(covariance, values, filters / filters.norm(dim=1, keepdim=True))


def _covariance(x: Tensor) -> Tensor:
    centered = x - x.mean(0)
    return centered.mT @ centered / len(x)


def _checked(stimulus: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Stimulus (T, P) and counts (T, N) that go together."""
    if stimulus.ndim != 2 or len(stimulus) != len(counts):
        raise ValueError(
            f"stimulus is (time, column) and counts go with it; {tuple(stimulus.shape)}, {tuple(counts.shape)}"
        )
    wrong = (~stimulus.isfinite()).nonzero()
    if len(wrong):
        raise ValueError(
            f"the stimulus in bin {int(wrong[0, 0])}, column {int(wrong[0, 1])} is no number; drop that bin"
        )
    y = counts.reshape(len(counts), -1).to(stimulus)
    silent = (y.sum(0) == 0).nonzero()
    if len(silent):
        raise ValueError(f"neuron {int(silent[0])} has no spike, and so no average")
    return stimulus, y
