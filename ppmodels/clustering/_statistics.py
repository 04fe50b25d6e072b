"""What a mixture's M step reads: weight, mean and scatter of each component, which add over sets of rows."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ppmodels.clustering._gaussian import log_constant

FLATTEST = 1e-8  # of the data's variance in a direction, below which a component is not believed


@dataclass(frozen=True)
class Statistics:
    """Weight (K,), mean (K, D), and scatter about it, (K, D, D) or (K, D), of the rows of each component.

    Those of two sets of rows add, and a number multiplies their weight. When tied, scatter has its sum alone.
    Source: Chan, Golub and LeVeque (1983), American Statistician 37, equations 2.1.
    """

    count: Tensor
    mean: Tensor
    scatter: Tensor
    dtype: torch.dtype = torch.float64  # of the rows; sums are in float64
    tied: bool = False

    def __add__(self, other: "Statistics") -> "Statistics":
        count, gap = self.count + other.count, other.mean - self.mean
        share = torch.where(count > 0, other.count / count, 0.0)  # (K,)
        between = gap[:, :, None] * gap[:, None] if self.scatter.ndim == 3 else gap.square()
        pull = (self.count * share).reshape(-1, *[1] * (between.ndim - 1))
        scatter = self.scatter + other.scatter + pull * between
        return Statistics(count, self.mean + share[:, None] * gap, scatter, self.dtype, self.tied)

    def __mul__(self, factor: float) -> "Statistics":
        return replace(self, count=self.count * factor, scatter=self.scatter * factor)

    def doubt(self) -> str:
        """Return why a top of the likelihood with these sums looks spurious, or nothing.

        A component on D + 1 rows or fewer, or much flatter than the data in some direction, has a high likelihood
        for any data: nearly equal rows, or rows nearly in a plane, are found in all of them by chance.
        Source: McLachlan and Peel (2000), Finite mixture models, section 3.10.
        """
        few = self.count < self.mean.shape[1] + (2 if self.scatter.ndim == 3 else 1)
        if few.any() and not self.tied:
            k = int(few.nonzero()[0])
            return f"component {k} has only {self.count[k].item():.3g} rows"
        flat = self._flatness() < FLATTEST  # (K,)
        return (
            f"component {int(flat.nonzero()[0])} is flat, as rows that lie in a plane by chance" if flat.any() else ""
        )

    def _flatness(self) -> Tensor:
        """The least variance of each component, in any direction, as a share of the data's there, (K,)."""
        every, rows = self.pooled(), self.count.reshape(-1, *[1] * (self.scatter.ndim - 1))
        own, whole = self.scatter / rows, every.scatter[0] / every.count
        if own.ndim == 2:
            return (own / whole).amin(-1)
        root, failed = torch.linalg.cholesky_ex(whole)
        if failed:
            return torch.ones_like(self.count)
        half = torch.linalg.solve_triangular(root, own, upper=False)  # (K, D, D)
        return torch.linalg.eigvalsh(torch.linalg.solve_triangular(root, half.mT, upper=False))[:, 0]

    def pooled(self) -> "Statistics":
        """Return those of all components as if they were one."""
        count = self.count.sum()
        mean = (self.count @ self.mean) / count
        gap = self.mean - mean  # (K, D)
        within, pull = self.scatter.sum(0), gap * self.count[:, None]
        between = pull.mT @ gap if self.scatter.ndim == 3 else (pull * gap).sum(0)
        return Statistics(count[None], mean[None], (within + between)[None], self.dtype)

    def split(self, components: int) -> "Statistics":
        """Return an equal share of those of one component for each of several."""
        count, mean, scatter = (
            part.expand(components, *part.shape[1:])
            for part in (self.count / components, self.mean, self.scatter / components)
        )
        return Statistics(count, mean, scatter, self.dtype)


def of_labels(x: Tensor, label: Tensor, components: int, triangular: bool, weight: Tensor | None = None) -> Statistics:
    """Return the statistics of components whose rows are known: row n is of component label_n, (N,)."""
    parts = []
    for k in range(components):
        mine = label == k
        gap = x[mine].double()
        middle = gap.mean(0) if len(gap) else x[0].double()
        gap -= middle
        w = None if weight is None else weight[mine].double()
        pulled = gap if w is None else gap * w[:, None]
        count = gap.new_tensor(float(len(gap))) if w is None else w.sum()
        shift = torch.where(count > 0, pulled.sum(0) / count, 0.0)
        second = pulled.mT @ gap if triangular else (pulled * gap).sum(0)
        off = shift[:, None] * shift if triangular else shift.square()
        parts.append((count, middle + shift, second - count * off))
    count, mean, scatter = (torch.stack(part) for part in zip(*parts, strict=True))
    return Statistics(count, mean, scatter, x.dtype)


def expected_log_joint(statistics: Statistics, log_weights: Tensor, loc: Tensor, factor: Tensor) -> Tensor:
    """Return E_q log p(x, z | theta), (), of the q whose statistics these are."""
    loc, factor = loc.double(), factor.double()
    gap, count = statistics.mean - loc, statistics.count
    if factor.ndim == 2:
        about = statistics.scatter + count[:, None] * gap.square()  # (K, D), about loc
        misfit = (about * factor.square()).sum()
    else:
        about = statistics.scatter + count[:, None, None] * gap[:, :, None] * gap[:, None]  # (K, D, D)
        misfit = ((factor.mT @ factor) * about).sum()
    constant = log_weights.double() + log_constant(factor)
    return torch.where(count > 0, count * constant, 0.0).sum() - misfit / 2
