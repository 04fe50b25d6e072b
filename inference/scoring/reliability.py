"""Reliability: of all that was called 80 % sure, do 80 % happen?"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inference.scoring.proper import as_table


@dataclass(frozen=True)
class Reliability:
    r"""Predictions in bins of their confidence; what a reliability diagram shows.

    .. math:: ECE = \sum_b \frac{n_b}{N} |f_b - c_b|, \qquad MCE = \max_b |f_b - c_b|

    edges: of the bins, (B + 1,); a bin holds its upper edge, the first its lower one too.
    count: predictions in each bin, n (B,).
    confidence: their mean confidence, c (B,), NaN in an empty bin.
    frequency: the share of them that came true, f (B,), NaN in an empty bin.
    Source: Guo et al. (2017), On calibration of modern neural networks, equations 2 to 5.
    """

    edges: Tensor
    count: Tensor
    confidence: Tensor
    frequency: Tensor

    @property
    def ece(self) -> float:
        """Expected calibration error."""
        return float((self.count * (self.frequency - self.confidence).abs()).nansum() / self.count.sum())

    @property
    def mce(self) -> float:
        """Maximum calibration error, over the bins that hold a prediction."""
        return float((self.frequency - self.confidence).abs().nan_to_num(0.0).max())

    @property
    def standard_error(self) -> Tensor:
        """Of each frequency if the confidence were right, (B,): what chance alone moves."""
        return (self.confidence * (1 - self.confidence) / self.count).sqrt()


def reliability(probability: Any, label: Any, *, bins: int = 15, equal_mass: bool = False) -> Reliability:
    """Return confidences beside frequencies.

    probability: of each class, (N, C): confidence is the largest, and true is that this class happens. Or of
        class 1 of two, (N,): confidence is that number itself, and true is that class 1 happens.
    label: what happened, (N,).
    equal_mass: bins that hold equally many predictions, rather than bins of equal width. Equal confidences
        share a bin, so that few different ones give fewer bins.
    Raises: ValueError that names the row which is no probability, or whose label is no class.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1; it is {bins}")
    table, label = as_table(probability, label)
    if not len(label):
        raise ValueError("there are no predictions to judge")
    if torch.as_tensor(probability).ndim == 1:
        confidence, true = table[:, 1], (label == 1).double()
    else:
        confidence, called = table.max(1)
        true = (called == label).double()
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=table.device)
    if equal_mass:
        place = (torch.arange(1, bins, device=table.device) * len(confidence) / bins).ceil().long() - 1
        inner = confidence.sort().values[place.clamp(min=0)].unique()
        edges = torch.cat([edges[:1], inner[inner < 1], edges[-1:]]).unique()
    where = torch.bucketize(confidence.clamp(0, 1), edges[1:-1])  # (N,); a bin holds its upper edge
    count = torch.zeros(len(edges) - 1, dtype=torch.float64, device=table.device)
    sums = [count.index_add(0, where, value) for value in (torch.ones_like(true), confidence, true)]
    return Reliability(edges, sums[0], sums[1] / sums[0], sums[2] / sums[0])
