"""How counts scatter around what drives them: the link from drive to mean, and the observation."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import softplus

Link = Literal["exp", "softplus", "threshold-linear", "sigmoid"]
Observation = Literal["poisson", "bernoulli", "negative-binomial"]

FLOOR = 1e-3  # of the reference rate: what is left below a threshold, so that a stray spike has a probability


@dataclass(frozen=True)
class Law:
    r"""p(count | drive), for bins of bin_size seconds and a reference rate in Hz.

    The mean count of a bin is bin_size times

        exp:               e^drive, so that the drive is a log rate in log Hz
        softplus:          rate log(1 + e^drive) / log 2
        threshold-linear:  rate max(drive, 0), and never less than a thousandth of the rate
        sigmoid:           1 / (1 + e^-drive) / bin_size, so at most one spike a bin.

    Bernoulli: P(spike) = 1 - exp(-mean), a point process seen in bins; with the sigmoid, the mean itself.
    Negative binomial: variance = mean + dispersion mean^2.
    """

    observation: Observation = "poisson"
    link: Link = "exp"
    bin_size: float = 0.01
    rate: float = 10.0

    def __post_init__(self) -> None:
        """Check the fields."""
        for name, kinds in (("observation", Observation), ("link", Link)):
            if getattr(self, name) not in get_args(kinds):
                raise ValueError(f"{name} must be one of {', '.join(get_args(kinds))}; it is {getattr(self, name)!r}")
        for name in ("bin_size", "rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite; it is {getattr(self, name)}")

    @property
    def rest(self) -> float:
        """The drive at which the rate is the reference."""
        at_sigmoid = math.log(self.rate * self.bin_size / max(1 - self.rate * self.bin_size, 1e-6))
        rests = {"exp": math.log(self.rate), "softplus": 0.0, "threshold-linear": 1.0, "sigmoid": at_sigmoid}
        return rests[self.link]

    @property
    def concave(self) -> bool:
        """Is log p concave in the drive, so that one mode is the only one?"""
        concave = {("poisson", "exp"), ("poisson", "softplus"), ("bernoulli", "exp"), ("bernoulli", "sigmoid")}
        return (self.observation, self.link) in concave

    def log_mean(self, drive: Tensor) -> Tensor:
        """Return the logarithm of the mean count of a bin."""
        if self.link == "exp":
            return drive + math.log(self.bin_size)
        if self.link == "sigmoid":
            return -softplus(-drive)
        reference = math.log(self.bin_size * self.rate)
        if self.link == "softplus":  # log(1 + e^x) = e^x below the reach of rounding
            low = drive < -30.0
            return reference - math.log(math.log(2)) + torch.where(low, drive, softplus(drive.clamp(min=-30.0)).log())
        return reference + drive.clamp(min=FLOOR).log()

    def mean(self, drive: Tensor) -> Tensor:
        """Return the mean count of a bin; of a Bernoulli bin, the probability of a spike."""
        mean = self.log_mean(drive).exp()
        return -torch.expm1(-mean) if self.observation == "bernoulli" and self.link != "sigmoid" else mean

    def hazard(self, drive: Tensor) -> Tensor:
        """Return the intensity integrated over a bin, which a point process with these bins would have."""
        return -torch.log1p(-self.mean(drive)) if self.observation == "bernoulli" else self.log_mean(drive).exp()

    def log_prob(self, counts: Tensor, drive: Tensor, dispersion: Tensor | None = None) -> Tensor:
        """Return log p(count) of every bin; dispersion: of each neuron, for the negative binomial."""
        log_mean = self.log_mean(drive)
        if self.observation == "bernoulli":
            if self.link == "sigmoid":
                return counts * drive - softplus(drive)
            mean = log_mean.exp()
            spike = torch.where(mean < 1e-5, log_mean - mean / 2, torch.log(-torch.expm1(-mean.clamp(min=1e-6))))
            return counts * spike - (1 - counts) * mean
        if self.observation == "poisson":
            return counts * log_mean - log_mean.exp() - torch.lgamma(counts + 1)
        assert dispersion is not None
        size, odds = 1 / dispersion, log_mean + dispersion.log()
        ways = torch.lgamma(counts + size) - torch.lgamma(size) - torch.lgamma(counts + 1)
        return ways + counts * odds - (counts + size) * softplus(odds)

    def sample(self, drive: Tensor, dispersion: Tensor | None = None, ceiling: float = math.inf) -> Tensor:
        """Return a count of every bin, of means that are cut at the ceiling."""
        if self.observation == "bernoulli":
            return torch.bernoulli(self.mean(drive).clamp(max=1.0))
        mean = self.log_mean(drive).clamp(max=math.log(ceiling)).exp()
        if self.observation == "negative-binomial":
            assert dispersion is not None
            size = (1 / dispersion).expand(mean.shape)
            mean = (mean * torch.distributions.Gamma(size, torch.ones_like(size)).sample() * dispersion).clamp(
                max=ceiling
            )
        return torch.poisson(mean)
