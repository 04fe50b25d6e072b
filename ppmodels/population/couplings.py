"""The coupling matrix of posterior draws: how strong, of which sign, and how sure."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class CouplingMatrix:
    """Couplings onto a neuron (row) from another (column), (N, N); NaN on the diagonal.

    mean, sd: of the filter's sum over its window, in units of the drive: what a spike adds up to, log gain for exp.
    positive: posterior probability that it excites.
    """

    mean: Tensor
    sd: Tensor
    positive: Tensor

    @property
    def sign(self) -> Tensor:
        """1 where it excites and -1 where it inhibits with 97.5% probability or more, else 0; NaN on the diagonal."""
        return self.signs()

    def signs(self, probability: float = 0.975) -> Tensor:
        """Return 1 and -1 where the sign has at least this probability, 0 where it is open, (N, N)."""
        sure = (self.positive >= probability).to(self.mean) - (self.positive <= 1 - probability).to(self.mean)
        return torch.where(self.positive.isnan(), torch.nan, sure)


def coupling_matrix(coupling_filter: Tensor) -> CouplingMatrix:
    """Return the matrix of draws of the filters, (chain, draw, N, N, L), as a fit of `glm` with `lags` holds them."""
    total = coupling_filter.flatten(0, 1).sum(-1)  # (S, N, N)
    alone = torch.eye(total.shape[-1], dtype=torch.bool, device=total.device)
    parts = total.mean(0), total.std(0) if len(total) > 1 else torch.zeros_like(total[0]), (total > 0).to(total).mean(0)
    return CouplingMatrix(*(torch.where(alone, torch.nan, part) for part in parts))
