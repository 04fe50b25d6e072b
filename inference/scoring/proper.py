"""Proper scores: those that nobody can improve by saying another probability than the one believed."""

from typing import Any

import torch
from torch import Tensor


def log_score(probability: Any, label: Any) -> float:
    """Return the mean log probability of what happened; higher is better.

    probability: of each class, (N, C), or of class 1 of two, (N,). label: (N,).
    Source: Good (1952), J. Royal Statistical Society B 14.
    """
    table, label = as_table(probability, label)
    return float(table.gather(1, label[:, None]).log().mean())


def brier_score(probability: Any, label: Any) -> float:
    """Return the mean squared distance from what happened, summed over the classes: 0 to 2, lower is better.

    probability: of each class, (N, C), or of class 1 of two, (N,). label: (N,).
    Source: Brier (1950), Monthly Weather Review 78, equation 2.
    """
    table, label = as_table(probability, label)
    happened = torch.nn.functional.one_hot(label, table.shape[1])  # (N, C)
    return float((table - happened).square().sum(1).mean())


def as_table(probability: Any, label: Any) -> tuple[Tensor, Tensor]:
    """Return probabilities of each class, (N, C), in float64, and labels (N,), after a check.

    Raises: ValueError that names the row which is no probability, or whose label is no class.
    """
    table, label = torch.as_tensor(probability).detach().double(), torch.as_tensor(label)
    if table.ndim == 1:
        table = torch.stack([1 - table, table], -1)
    if table.ndim != 2 or label.shape != table.shape[:1]:
        raise ValueError(f"want probability (N, C) and label (N,); got {tuple(table.shape)} and {tuple(label.shape)}")
    bad = (~((table >= 0).all(1) & ((table.sum(1) - 1).abs() < 1e-4))).nonzero()
    if len(bad):
        raise ValueError(f"row {int(bad[0])} is no distribution over classes: {table[int(bad[0])].tolist()}")
    check_label(label, table.shape[1])
    return table, label.long()


def check_label(label: Tensor, classes: int) -> None:
    """Raise a ValueError that names the first row whose label is none of 0 to classes - 1."""
    wrong = (~((label >= 0) & (label < classes))).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(f"label is {label[row].item()} in row {row}; classes are 0 to {classes - 1}")
