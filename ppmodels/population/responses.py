"""The mean response over trials, of what was seen and of what a model predicts."""

import math

import torch
from torch import Tensor

from ppmodels.population.lagging import direct


def psth(counts: Tensor, bin_size: float, smoothing: float = 0.0) -> Tensor:
    """Return the peri-stimulus time histogram in Hz, (T, N), of counts (..., T, N), averaged over all in front.

    smoothing: sd of a Gaussian window in seconds, that is cut at the ends and weighs what is left; 0 for none.
    """
    rate = counts.double().flatten(0, -3).mean(0) / bin_size if counts.ndim > 2 else counts.double() / bin_size
    width = smoothing / bin_size
    if not width:
        return rate
    half = max(1, math.ceil(4 * width))
    window = torch.exp(-0.5 * (torch.arange(-half, half + 1, dtype=rate.dtype) / width).square())[:, None].to(
        rate.device
    )

    def summed(x: Tensor) -> Tensor:
        ends = x.new_zeros(half, x.shape[1])
        return direct(torch.cat([ends, x, ends]), window)[..., 0]

    return summed(rate) / summed(torch.ones_like(rate))


def psth_r2(observed: Tensor, predicted: Tensor) -> Tensor:
    """Return the share of each neuron's PSTH that is explained, (N,), of PSTHs (T, N); NaN for a flat one."""
    spread = (observed - observed.mean(0)).square().sum(0)
    left = (observed - predicted).square().sum(0)
    return torch.where(spread > 0, 1 - left / spread, math.nan)
