r"""Time rescaling: under the true intensity, the intensity integrated between spikes is exponential, whatever it was.

In bins the plain form is wrong: rescaled intervals are whole sums of bins, and their shortest are missing. Where in
its bin a spike lay is not known, so it is drawn, which makes the test exact for a rate that is constant in each bin.

Source: Brown et al. (2002), Neural Computation 14, 325-346; Haslinger, Pipa and Brown (2010), Neural Computation 22,
2477-2506.
"""

import math
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor


@dataclass(frozen=True)
class Rescaled:
    """Rescaled intervals of one neuron, as uniforms in order, (intervals,), and Kolmogorov and Smirnov's test of them.

    statistic: largest distance to the diagonal. band: 1.36 / sqrt(intervals), which 95% of true models stay below.
    p_value: of that distance.
    """

    uniforms: Tensor
    statistic: float
    p_value: float

    @property
    def band(self) -> float:
        """The 95% band around the diagonal, for many intervals."""
        return 1.36 / math.sqrt(max(1, len(self.uniforms)))

    @property
    def passes(self) -> bool:
        """Does the model stay inside the band?"""
        return self.statistic < self.band


def time_rescaling(
    counts: Tensor, hazard: Tensor, seen: Tensor | None = None, seed: int = 0, corrected: bool = True,
    bernoulli: bool = False,
) -> Rescaled:  # fmt: skip
    """Return the rescaled intervals of one neuron's counts, and how far they are from uniform.

    counts, hazard: (T,), or (trials, T) laid end to end, which leaves a unit-rate Poisson process what it is.
        The hazard is the intensity integrated over a bin: a Poisson mean, or -log(1 - p) of a Bernoulli bin.
    seen: which bins count. corrected: draw where in its bin a spike lay; False is the plain form, for comparison.
    bernoulli: a spike is the first of its bin and ends it; else the spikes of a bin lie anywhere in it.

    Raises: ValueError where there are fewer than two spikes, or a hazard is negative or no number.
    """
    y, rate = counts.reshape(-1).double(), hazard.reshape(-1).double()
    if seen is not None:
        keep = seen.reshape(-1) > 0
        y, rate = y[keep], rate[keep]
    wrong = (~rate.isfinite() | (rate < 0)).nonzero()
    if len(wrong):
        raise ValueError(f"the hazard of bin {int(wrong[0])} is {float(rate[wrong[0]]):g}")
    if float(y.sum()) < 2:
        raise ValueError(f"{int(y.sum())} spikes have no intervals to rescale; leave this neuron out")
    generator = torch.Generator(y.device).manual_seed(seed)
    end = rate.cumsum(0)  # (T,)
    bin_ = torch.arange(len(y), device=y.device).repeat_interleave(y.long())  # of each spike
    share = torch.rand(len(bin_), generator=generator, dtype=y.dtype, device=y.device)
    size = rate[bin_]
    if not corrected:
        place = end[bin_]
    elif bernoulli:  # of the exponential, cut off at the bin's end
        place = end[bin_] - size - torch.log1p(share * torch.expm1(-size))
    else:
        place = end[bin_] - size + share * size
    place = place.sort().values
    if bernoulli and corrected:  # the rest of a spike's bin is over
        used = torch.cat([place.new_zeros(1), end[bin_][:-1]])
    else:
        used = torch.cat([place.new_zeros(1), place[:-1]])
    uniforms = -torch.expm1(-(place - used).clamp(min=0))
    test = stats.kstest(uniforms.cpu().numpy(), "uniform")
    return Rescaled(uniforms.sort().values, float(test.statistic), float(test.pvalue))
