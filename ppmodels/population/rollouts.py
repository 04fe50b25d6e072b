"""Simulations from a coupled model, and what makes them run away."""

from typing import Any

import torch
from torch import Tensor

from ppmodels.base import Data, Theta
from ppmodels.population.binning import Counts

RUN = 10  # bins


def rollout(model: Any, theta: Theta, data: Data, seed: int = 0) -> Tensor:
    """Return counts (R, T, N) drawn bin by bin: each given the simulated ones before it, not those in the data.

    theta: one value of each weight, (N, ...). data: rows whose stimulus and past are used; observed counts are not.

    Raises: ArithmeticError naming neuron, bin and trial where a neuron stays near the model's ceiling.
    """
    device = theta["baseline"].device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        counts = model.population(theta, data).sample()
    check_rollout(model, counts, data.coords.get("neuron"))
    return counts


def check_rollout(model: Any, counts: Tensor, neurons: Any = None) -> None:
    """Refuse simulated counts, (..., R, T, N), that stay near the ceiling; the line names the first neuron and bin.

    One bin of many spikes is a burst; ten bins that hold half of what the ceiling allows are a runaway.

    Raises: ArithmeticError.
    """
    ceiling = max(2.0, model.ceiling * model.bin_size)
    flat = counts.reshape(-1, *counts.shape[-3:])
    width = min(RUN, flat.shape[2])
    high = flat.unfold(2, width, 1).mean(-1) >= ceiling / 2  # (S, R, T - width + 1, N)
    if not bool(high.any()):
        return
    places = high.nonzero()
    sample, trial, time, neuron = places[places[:, 2].argmin()].tolist()
    most = float(flat[sample, trial, time : time + width, neuron].max())
    name = neurons[neuron] if neurons is not None else neuron
    raise ArithmeticError(
        f"the simulation runs away: neuron {name} fires {most:g} spikes in a bin from bin {time} of "
        f"trial {trial}; its excitation is too strong: tighten `scale`, or take link='softplus' or 'sigmoid'"
    )


def branching_ratio(model: Any, theta: Theta, rates: Tensor) -> float:
    """Return how many spikes a spike causes in all, to first order, at these mean rates in Hz, (N,).

    It is the largest modulus of the eigenvalues of diag(mean count) times the summed filters; at 1 and above a
    population with the exponential link runs away, though in a finite simulation it may not come to that.
    """
    own = model.windows(theta["baseline"])
    gains = _gains(model, theta, own)  # (N, N), onto and from
    drive = (rates.to(gains) * model.bin_size)[:, None] * gains
    return float(torch.linalg.eigvals(drive).abs().max())


def rates_of(counts: Counts) -> Tensor:
    """Return mean rates in Hz, (N,)."""
    return counts.totals / (counts.bins * counts.bin_size)


def _gains(model: Any, theta: Theta, own: Any) -> Tensor:
    """Each filter's sum over its lags, (N, N)."""
    neurons = model.neurons
    total = theta["baseline"].new_zeros(neurons, neurons)
    filters = model.filters_in_time(theta)
    if "coupling_filter" in filters:
        total = total + filters["coupling_filter"].sum(-1)
    if "history_filter" in filters:
        total = total + torch.diag(filters["history_filter"].sum(-1))
    return total
