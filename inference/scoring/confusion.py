"""Which class was taken for which, and the rates that follow from it."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Confusion:
    r"""Counts of rows by true and predicted class, and the rates of each class against all others.

    With TP, FP, FN, TN of class c: rows of c called c, others called c, rows of c called otherwise, the rest:

    .. math:: \text{precision} = \frac{TP}{TP + FP},\; \text{recall} = \frac{TP}{TP + FN},\;
        F_1 = \frac{2 TP}{2 TP + FP + FN},\; \text{accuracy} = \frac{\sum_c TP_c}{N}

    table: rows of true class i that were called j, (C, C).
    undefined: what 0 / 0 is: the precision of a class that is never predicted, the recall of one that never
        occurs, F1 where neither happens. NaN says so; 0 is the pessimist's and 1 the optimist's reading.
    """

    table: Tensor
    undefined: float = math.nan

    @property
    def true_positive(self) -> Tensor:
        """Rows of the class that are called so, (C,)."""
        return self.table.diagonal()

    @property
    def false_positive(self) -> Tensor:
        """Rows of other classes that are called so, (C,)."""
        return self.table.sum(0) - self.true_positive

    @property
    def false_negative(self) -> Tensor:
        """Rows of the class that are called otherwise, (C,)."""
        return self.table.sum(1) - self.true_positive

    @property
    def true_negative(self) -> Tensor:
        """Rows of other classes that are called otherwise, (C,)."""
        return self.table.sum() - self.true_positive - self.false_positive - self.false_negative

    @property
    def accuracy(self) -> float:
        """Share of rows that are right."""
        return float(self._ratio(self.true_positive.sum(), self.table.sum()))

    @property
    def precision(self) -> Tensor:
        """Share of those called so that are so, (C,)."""
        return self._ratio(self.true_positive, self.table.sum(0))

    @property
    def recall(self) -> Tensor:
        """Share of those that are so that are called so, (C,); of class 1 of two, the sensitivity."""
        return self._ratio(self.true_positive, self.table.sum(1))

    @property
    def specificity(self) -> Tensor:
        """Share of those that are not so that are not called so, (C,)."""
        return self._ratio(self.true_negative, self.true_negative + self.false_positive)

    @property
    def f1(self) -> Tensor:
        """Harmonic mean of precision and recall, (C,)."""
        wrong = self.false_positive + self.false_negative
        return self._ratio(2 * self.true_positive, 2 * self.true_positive + wrong)

    def macro(self, rate: str) -> float:
        """Return the mean over the classes of `precision`, `recall`, `specificity` or `f1`; NaN ones left out."""
        return float(getattr(self, rate).nanmean())

    def _ratio(self, part: Tensor, whole: Tensor) -> Tensor:
        """A share, and what is agreed where there is nothing to share."""
        return torch.where(whole > 0, part / whole, self.undefined)


def confusion(
    label: Any, predicted: Any, *, classes: int | None = None, weight: Any = None, undefined: float = math.nan
) -> Confusion:
    """Return how often each class was taken for each.

    label, predicted: classes 0 to C - 1, (N,) each. classes: C; by default one more than the largest seen.
    weight: how often each row counts, (N,).
    Raises: ValueError when lengths differ, or a class is out of range; it names the row.
    """
    label, predicted = torch.as_tensor(label), torch.as_tensor(predicted)
    if label.ndim != 1 or label.shape != predicted.shape:
        raise ValueError(f"label and predicted must be (N,); got {tuple(label.shape)}, {tuple(predicted.shape)}")
    seen = int(torch.cat([label, predicted]).max()) + 1 if len(label) else 0
    classes = seen if classes is None else classes
    for name, value in (("label", label), ("predicted", predicted)):
        wrong = ((value < 0) | (value >= classes) | (value != value.floor())).nonzero()
        if len(wrong):
            row = int(wrong[0])
            raise ValueError(f"{name} is {value[row].item()} in row {row}; classes are 0 to {classes - 1}")
    count = torch.ones(len(label), dtype=torch.float64) if weight is None else torch.as_tensor(weight).double()
    cell = label.long() * classes + predicted.long()  # (N,)
    table = torch.zeros(classes**2, dtype=torch.float64, device=label.device).index_add_(
        0, cell, count.to(label.device)
    )
    return Confusion(table.reshape(classes, classes), undefined)
