"""What a hidden state emits: spike counts that are Poisson, or spikes that are Bernoulli, neurons independent."""

from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import Distribution
from torch import Tensor

SMALL = 1e-12  # least rate of a state that never emits, so that its logarithm is finite


@dataclass(frozen=True)
class PoissonRates:
    """Counts: rate (S, N) in Hz, in bins of so many seconds."""

    rate: Tensor
    bin_size: float
    gaps: bool

    def score(self, y: Tensor) -> Tensor:
        """Return log p(y_t | state), (R, T, S), of counts (R, T, N)."""
        mean = (self.rate * self.bin_size).clamp_min(SMALL)
        counts, seen = _split(y, self.gaps)
        expected = mean.sum(-1) if seen is None else seen @ mean.mT
        return counts @ mean.log().mT - expected - torch.lgamma(counts + 1).sum(-1, keepdim=True)

    def law(self, states: Tensor) -> Distribution:
        """Return the law of counts (*states, N)."""
        return dist.Poisson(self.rate[states] * self.bin_size)


@dataclass(frozen=True)
class BernoulliRates:
    """Spikes: rate (S, N), the probability of one in a bin."""

    rate: Tensor
    gaps: bool

    def score(self, y: Tensor) -> Tensor:
        """Return log p(y_t | state), (R, T, S), of spikes (R, T, N)."""
        rate = self.rate.clamp(SMALL, 1 - SMALL)
        spikes, seen = _split(y, self.gaps)
        silent = torch.log1p(-rate)
        quiet = silent.sum(-1) if seen is None else seen @ silent.mT
        return spikes @ (rate.log() - silent).mT + quiet

    def law(self, states: Tensor) -> Distribution:
        """Return the law of spikes (*states, N)."""
        return dist.Bernoulli(self.rate[states])


def of(family: str, rate: Tensor, bin_size: float, gaps: bool) -> PoissonRates | BernoulliRates:
    """Return the emissions of a family."""
    return PoissonRates(rate, bin_size, gaps) if family == "poisson" else BernoulliRates(rate, gaps)


def prior(model: Any) -> Distribution:
    """Return the prior of rate (S, N) with the model's mean: gamma of its shape, or beta."""
    size = (model.states, model.neurons)
    shape = torch.full(size, model.shape)
    if model.emission == "poisson":
        return dist.Gamma(shape, model.shape / model.rate).to_event(2)
    share = min(model.rate * model.bin_size, 0.5)
    return dist.Beta(shape, shape * (1 / share - 1)).to_event(2)


def maximise(family: str, state: Tensor, y: Tensor, bin_size: float, priors: Any) -> Tensor:
    """Return rate (S, N) from p(z_t | y), (R, T, S), and y (R, T, N)."""
    counts, seen = _split(y, True)
    assert seen is not None
    spikes = torch.einsum("rts,rtn->sn", state, counts)
    time = torch.einsum("rts,rtn->sn", state, seen)
    if family == "poisson":
        time = time * bin_size
        if priors is not None:
            law = priors["rate"].base_dist
            spikes, time = spikes + law.concentration - 1, time + law.rate
        return spikes.clamp_min(0) / time.clamp_min(SMALL)
    if priors is not None:
        law = priors["rate"].base_dist
        spikes, time = spikes + law.concentration1 - 1, time + law.concentration1 + law.concentration0 - 2
    return (spikes / time.clamp_min(SMALL)).clamp(0, 1)


def start(family: str, y: Tensor, states: int, bin_size: float) -> Tensor:
    """Return rates (S, N) to start from: halfway from the mean to what a few neighbouring bins happen to hold."""
    counts = torch.where(y.isnan(), y.nanmean((0, 1)), y)
    window = min(5, y.shape[1])
    smooth = counts.unfold(1, window, 1).mean(-1).flatten(0, 1)  # (B, N)
    picked = smooth[torch.randint(len(smooth), (states,), device=y.device)]
    rate = 0.5 * picked + 0.5 * counts.mean((0, 1)) * torch.empty_like(picked).uniform_(0.5, 1.5) + 1e-3
    return rate / bin_size if family == "poisson" else rate.clamp(0.01, 0.99)


def describe(y: Any, bin_size: float) -> dict[str, Any]:
    """Return the fields of a model of counts y, (R, T, N); rate is the mean of all neurons in Hz."""
    y = torch.as_tensor(y)
    rate = max(float(y.double().nanmean()), 1e-6) / bin_size
    shape = {"neurons": y.shape[2], "bins": y.shape[1], "gaps": bool(y.isnan().any())}
    return {**shape, "bin_size": bin_size, "rate": rate}


def _split(y: Tensor, gaps: bool) -> tuple[Tensor, Tensor | None]:
    """Values with zeros for what was not seen, and what was seen as ones."""
    if not gaps:
        return y, None
    missing = y.isnan()
    return torch.where(missing, 0.0, y), (~missing).to(y)
