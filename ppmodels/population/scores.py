"""How well rates predict spikes: log likelihood, bits a spike, deviance, pseudo-R2, each beside a stated null."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Score:
    """Scores of each neuron, (N,), float64; NaN bits and R2 for a neuron that is silent in what is scored.

    log_likelihood, null_log_likelihood: nats over all bins scored. spikes: scored. deviance, null_deviance: twice the
    gap to a model that knows every count. null: what the null is.
    """

    log_likelihood: Tensor
    null_log_likelihood: Tensor
    spikes: Tensor
    deviance: Tensor
    null_deviance: Tensor
    null: str

    @property
    def bits_per_spike(self) -> Tensor:
        """(log likelihood - that of the null) / spikes / log 2, (N,)."""
        gain = (self.log_likelihood - self.null_log_likelihood) / math.log(2)
        return torch.where(self.spikes > 0, gain / self.spikes, math.nan)

    @property
    def total_bits_per_spike(self) -> float:
        """The same over all neurons together."""
        gain = float((self.log_likelihood - self.null_log_likelihood).sum()) / math.log(2)
        return gain / float(self.spikes.sum()) if bool(self.spikes.any()) else math.nan

    @property
    def pseudo_r2(self) -> Tensor:
        """1 - deviance / deviance of the null, (N,): Cohen's."""
        return torch.where(self.spikes > 0, 1 - self.deviance / self.null_deviance, math.nan)


def score(
    counts: Tensor, mean: Tensor, null_mean: Tensor | None = None, seen: Tensor | None = None, bernoulli: bool = False
) -> Score:
    """Return the scores of predicted means of counts, both (..., N).

    null_mean: each neuron's mean count a bin, (N,), of the training data; by default that of the bins scored, as the
        Neural Latents Benchmark has it, which makes the null better and the score stricter.
    seen: which bins count, as counts. bernoulli: a mean is the probability of a spike; else counts are Poisson.

    Raises: ValueError naming the neuron and bin where a mean is no number, or is zero and a spike is there.
    """
    shape = counts.shape[-1]
    y, m = counts.reshape(-1, shape).double(), mean.expand_as(counts).reshape(-1, shape).double()
    keep = torch.ones_like(y) if seen is None else (seen.reshape(-1, shape) > 0).double()
    wrong = (keep > 0) & (~m.isfinite() | (m < 0) | ((m == 0) & (y > 0)))
    if bool(wrong.any()):
        t, n = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"neuron {n}, bin {t}: the predicted mean is {float(m[t, n]):g}, of a count of {float(y[t, n]):g}"
        )
    law = _bernoulli if bernoulli else _poisson
    told = "mean rate of the training data" if null_mean is not None else "mean rate of the bins scored"
    spikes = (y * keep).sum(0)
    flat = spikes / keep.sum(0) if null_mean is None else null_mean.double()
    own, null, best = ((law(y, x) * keep).sum(0) for x in (m, flat.expand_as(y), y))
    return Score(own, null, spikes, 2 * (best - own), 2 * (best - null), told)


def _poisson(y: Tensor, mean: Tensor) -> Tensor:
    return torch.xlogy(y, mean) - mean - torch.lgamma(y + 1)


def _bernoulli(y: Tensor, p: Tensor) -> Tensor:
    return torch.xlogy(y, p) + torch.special.xlog1py(1 - y, -p)
