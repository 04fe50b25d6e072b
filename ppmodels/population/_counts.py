"""Spike counts in bins of so many seconds: expected numbers, what a model's fields say of them, where EM begins."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ppmodels.population._checks import describe as describe_values
from ppmodels.population._system_start import start as start_gaussian
from ppmodels.population.linear_system import LinearSystem

LARGEST = 1e6  # expected spikes in a bin: more is a runaway simulation, not a neuron


def expected(log_rate: Tensor, bin_size: float) -> Tensor:
    """Return the expected number of spikes in a bin, for log rates in Hz; it is held at `LARGEST`."""
    return (log_rate + math.log(bin_size)).clamp_max(math.log(LARGEST)).exp()


def describe(y: Any, bin_size: float) -> dict[str, Any]:
    """Return the fields of a model of counts y, (R, T, N); center is the log of each neuron's mean rate in Hz."""
    fields = describe_values(y)
    del fields["scale"]
    counts = torch.as_tensor(y).double()
    spikes, bins = counts.nansum((0, 1)), (~counts.isnan()).sum((0, 1))
    rate = (spikes + 0.5) / (bins + 1) / bin_size
    return {**fields, "bin_size": bin_size, "center": tuple(rate.log().tolist())}


def start(y: Tensor, latents: int, bin_size: float, initial: str) -> LinearSystem:
    """Return a system to start from: that of smoothed square roots of counts, on the scale of log rates."""
    root = (y + 0.375).sqrt()  # Anscombe (1948): of nearly one variance, 1/4
    system = start_gaussian(root, latents, initial)
    rate = y.nanmean((0, 1)).clamp_min(0.5 / y[..., 0].numel())
    slope = 2 / (rate + 0.375).sqrt()  # d log rate / d root
    return replace(system, loading=slope[:, None] * system.loading, offset=(rate / bin_size).log(), noise=None)
