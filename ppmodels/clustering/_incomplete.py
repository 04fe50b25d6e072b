r"""Rows with missing values, NaN: each pattern of what is there is a mixture over fewer columns.

What is missing is summed out where a density is wanted, and expected, with its variance, where an M step is:

.. math:: E[x_m \mid x_o, k] = \mu_m + A (x_o - \mu_o),\quad V[x_m \mid x_o, k] = \Sigma_{mm} - A \Sigma_{om},
    \quad A = \Sigma_{mo} \Sigma_{oo}^{-1}

which is right when values are missing at random: whether one is missing may depend on what is seen, not on itself.
Source: Ghahramani and Jordan (1994), NIPS 6; Little and Rubin (2002), Statistical analysis with missing data.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ppmodels.clustering import _gaussian, _one_pass
from ppmodels.clustering._covariance import covariance
from ppmodels.clustering._statistics import Statistics


def log_density(x: Tensor, loc: Tensor, factor: Tensor) -> Tensor:
    """Return log Normal of what is there of each row, (N, K); arguments as in `_gaussian.log_density`."""
    if not x.sum().isnan():
        return _gaussian.log_density(x, loc, factor)
    table = x.new_zeros(len(x), len(loc))
    for pattern in _patterns(x, loc, factor):
        if pattern.seen.any():
            rows = x[pattern.rows][:, pattern.seen]
            table[pattern.rows] = _gaussian.log_density(rows, loc[:, pattern.seen], pattern.factor).to(table)
    return table


def expected(
    x: Tensor, log_weights: Tensor, loc: Tensor, factor: Tensor, row_weight: Tensor | None = None
) -> tuple[Statistics, Tensor]:
    """Return statistics of the rows as if complete, and the log likelihood of what is there; see `_one_pass`."""
    if not x.sum().isnan():
        return _one_pass.expected(x, log_weights, loc, factor, row_weight)
    total, log_likelihood = None, loc.new_zeros((), dtype=torch.float64)
    loc, factor = loc.double(), factor.double()
    for pattern in _patterns(x, loc, factor):
        w = None if row_weight is None else row_weight[pattern.rows]
        seen, score = _one_pass.expected(
            x[pattern.rows][:, pattern.seen], log_weights, loc[:, pattern.seen], pattern.factor, w
        )
        part = pattern.complete(seen, loc)
        total, log_likelihood = part if total is None else total + part, log_likelihood + score
    assert total is not None
    return total, log_likelihood


@dataclass(frozen=True)
class _Pattern:
    """Rows in which the same columns are seen, and the mixture's law of these columns and of the others given them."""

    rows: Tensor  # (n,)
    seen: Tensor  # (D,), bool
    factor: Tensor  # whitens what is seen, (K, O, O), or (1, O, O), or (K, O)
    slope: Tensor | None  # A, (K, M, O); none when columns are independent
    spread: Tensor  # V of what is missing, (K, M, M), or (K, M)

    def complete(self, seen: Statistics, loc: Tensor) -> Statistics:
        """Return the statistics over all columns from those of what is seen."""
        there, gone = self.seen.nonzero()[:, 0], (~self.seen).nonzero()[:, 0]
        mean = loc.clone()
        mean[:, there] = seen.mean
        if self.slope is None:
            scatter = torch.zeros_like(loc)
            scatter[:, there] = seen.scatter
            scatter[:, gone] = seen.count[:, None] * self.spread
            return Statistics(seen.count, mean, scatter, tied=seen.tied)
        shift = (self.slope @ (seen.mean - loc[:, there])[..., None])[..., 0]
        mean[:, gone] = torch.where(seen.count[:, None] > 0, loc[:, gone] + shift, 0.0)
        across = self.slope @ seen.scatter  # (K, M, O)
        scatter = loc.new_zeros(*loc.shape, loc.shape[1])
        scatter[:, there[:, None], there] = seen.scatter
        scatter[:, gone[:, None], there] = across
        scatter[:, there[:, None], gone] = across.mT
        scatter[:, gone[:, None], gone] = across @ self.slope.mT + seen.count[:, None, None] * self.spread
        return Statistics(seen.count, mean, scatter, tied=seen.tied)


def _patterns(x: Tensor, loc: Tensor, factor: Tensor) -> Iterator[_Pattern]:
    """The patterns of missing values, each with its rows."""
    kinds, which = x.isnan().unique(dim=0, return_inverse=True)  # (P, D), (N,)
    order, sigma = which.argsort(), covariance(factor, triangular=True) if factor.ndim == 3 else None
    for kind, rows in zip(kinds, order.split(which.bincount().tolist()), strict=True):
        seen = ~kind
        if sigma is None:
            yield _Pattern(rows, seen, factor[:, seen], None, factor[:, kind].square().reciprocal())
            continue
        inside, across = sigma[:, seen][:, :, seen], sigma[:, kind][:, :, seen]
        root = torch.linalg.cholesky(inside)
        slope = torch.cholesky_solve(across.mT, root).mT
        white = torch.linalg.solve_triangular(root, torch.eye(root.shape[-1]).to(root), upper=False)
        spread = sigma[:, kind][:, :, kind] - slope @ across.mT
        yield _Pattern(rows, seen, white, slope, spread)
