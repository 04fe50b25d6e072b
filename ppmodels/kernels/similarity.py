"""Representational similarity analysis: compare two descriptions of the same items by their similarities alone."""

from typing import Literal

import numpy as np
import torch
from scipy.stats import kendalltau, rankdata
from torch import Tensor

from ppmodels.kernels.functions import Kernel, check_points, squared_distance
from ppmodels.kernels.kernel_pca import centre

Dissimilarity = Literal["euclidean", "squared", "correlation", "cosine"]


def dissimilarity(x: Tensor, kind: Dissimilarity = "correlation") -> Tensor:
    """Return how unlike each two rows of x (N, D) are, (N, N): distances, or 1 minus correlation or cosine.

    Raises: ValueError for an unknown kind, or a row that has no variance to correlate.
    """
    x = check_points(x)
    if kind in ("euclidean", "squared"):
        squared = squared_distance(x, x).fill_diagonal_(0)
        return squared if kind == "squared" else squared.sqrt()
    if kind not in ("correlation", "cosine"):
        raise ValueError(f"kind must be euclidean, squared, correlation or cosine; it is {kind!r}")
    rows = x - x.mean(-1, keepdim=True) if kind == "correlation" else x
    norm = rows.norm(dim=-1, keepdim=True)
    if (norm == 0).any():
        raise ValueError(f"row {int(norm[:, 0].argmin())} is constant; it has no {kind} with others")
    return (1 - (rows / norm) @ (rows / norm).mT).fill_diagonal_(0)


def from_kernel(x: Tensor, kernel: Kernel) -> Tensor:
    """Return squared distances in the kernel's feature space, k(x, x) + k(y, y) - 2 k(x, y), (N, N)."""
    diagonal = kernel.diagonal(x)
    return (diagonal[:, None] + diagonal - 2 * kernel(x)).clamp(min=0)


def compare(first: Tensor, second: Tensor, by: Literal["pearson", "spearman", "kendall"] = "spearman") -> float:
    """Return the correlation of two dissimilarity matrices (N, N), over the pairs above the diagonal.

    Raises: ValueError when shapes differ, N is below 3, or one of them is constant.
    """
    if first.shape != second.shape or first.ndim != 2 or len(first) < 3:
        raise ValueError(f"two (N, N) with N >= 3 are needed; got {tuple(first.shape)} and {tuple(second.shape)}")
    i, j = torch.triu_indices(len(first), len(first), 1)
    a, b = first[i, j].double(), second[i, j].double()
    if (a == a[0]).all() or (b == b[0]).all():
        raise ValueError("a matrix in which all pairs are alike correlates with nothing")
    if by == "kendall":
        return float(np.asarray(kendalltau(a.numpy(), b.numpy()))[0])
    if by == "spearman":
        a, b = torch.from_numpy(rankdata(a.numpy())), torch.from_numpy(rankdata(b.numpy()))
    elif by != "pearson":
        raise ValueError(f"by must be pearson, spearman or kendall; it is {by!r}")
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


def permutation_test(
    first: Tensor,
    second: Tensor,
    permutations: int = 1000,
    seed: int = 0,
    by: Literal["pearson", "spearman"] = "spearman",
) -> tuple[float, float]:
    """Return the correlation, and the share of relabellings of the items that reach it (one-sided)."""
    observed, generator = compare(first, second, by), torch.Generator().manual_seed(seed)
    reached = 1
    for _ in range(permutations):
        order = torch.randperm(len(first), generator=generator)
        reached += compare(first[order][:, order], second, by) >= observed
    return observed, reached / (permutations + 1)


def kernel_alignment(first: Tensor, second: Tensor) -> float:
    r"""Return :math:`\langle \bar K, \bar L \rangle / |\bar K| |\bar L|` of Gram matrices (N, N), both centred.

    Source: Kornblith et al. (2019), arXiv:1905.00414, centred kernel alignment.
    """
    a, b = centre(first), centre(second)
    return float((a * b).sum() / (a.norm() * b.norm()))
