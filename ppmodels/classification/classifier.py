"""Naive Bayes that is learned by counting: in one go, in pieces, from sparse text; and that predicts exactly."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ppmodels.base import Theta
from ppmodels.classification import _conjugate, _predictive
from ppmodels.classification._columns import Columns, check_labels
from ppmodels.classification._scores import log_density
from ppmodels.classification._sparse import SparseTables, check_cells, is_sparse, sparse_log_density
from ppmodels.classification._tables import Tables, empty, memberships, tables
from ppmodels.classification.naive_bayes import NaiveBayes


@dataclass
class Classifier:
    """A naive Bayes model and the sums of all rows it has seen.

    Learning adds to sums, so that pieces give what the whole gives, in any order; a logarithm is taken only when
    somebody asks. Rows of unknown class (-1) do not count. Text may come sparse, as SciPy's or torch's CSR, when all
    columns are counted, or all are binary.
    """

    model: NaiveBayes
    sums: Tables = field(init=False)

    def __post_init__(self) -> None:
        self.columns: Columns = self.model._kinds
        self.sums, self._pending = empty(self.columns, self.model.classes, torch.float64), None

    def learn(self, x: Any, y: Any, weight: Any = None) -> "Classifier":
        """Add rows x (N, D) of classes y (N,), each as often as its weight says.

        Raises: ValueError that names row and column; nothing of these rows is then learned.
        """
        y = torch.as_tensor(y)
        check_labels(y, self.model.classes)
        if len(y) != x.shape[0]:
            raise ValueError(f"x has {x.shape[0]} rows and y has {len(y)}")
        weight = None if weight is None else torch.as_tensor(weight)
        if is_sparse(x):
            check_cells(self.columns, x)
            more = SparseTables.of(self.columns, x, y, self.model.classes, weight)
            self._pending = more if self._pending is None else self._pending + more
            return self
        x = torch.as_tensor(x)
        self.columns.check(x)
        self.sums = self.sums + tables(self.columns, x, memberships(y, self.model.classes, weight))
        return self

    def parameters(self, prior: bool = True) -> Theta:
        """Return the mode of the posterior, or the maximum of the likelihood."""
        return _conjugate.best(self.model, self._all(), prior)

    def log_joint(self, x: Any, theta: Theta | None = None) -> Tensor:
        """Return log p(x, y = c), (N, C), at these parameters, or by default with all of them integrated out.

        Multinomial coefficients, the same for all classes, are left out.
        """
        if is_sparse(x):
            theta = theta or _conjugate.mean_of(self.model, self._all())
            return theta["class_prob"].log() + sparse_log_density(self.columns, theta, x)
        x = torch.as_tensor(x)
        if theta is not None:
            return theta["class_prob"].log() + log_density(self.columns, theta, x)
        return _predictive.log_joint(self.model, self.columns, self._all(), x)

    def predict_proba(self, x: Any, theta: Theta | None = None) -> Tensor:
        """Return the probability of each class, (N, C)."""
        return self.log_joint(x, theta).softmax(-1)

    def predict(self, x: Any, theta: Theta | None = None) -> Tensor:
        """Return the most probable class of each row, (N,)."""
        return self.log_joint(x, theta).argmax(-1)

    def leave_one_out(self, x: Any, y: Any) -> Tensor:
        """Return log p(x_n, y = c | all rows but n), (N, C), for rows that were learned, each with weight 1.

        Its softmax predicts each row from the others, as N fits would, at the cost of one.
        """
        return _predictive.leave_one_out(self.model, self.columns, self._all(), torch.as_tensor(x), torch.as_tensor(y))

    def log_evidence(self) -> float:
        """Return log p(x, y), without multinomial coefficients: by it, smoothing and kinds of columns are chosen."""
        return float(_conjugate.log_evidence(self.model, self._all()))

    def _all(self) -> Tables:
        """The sums, with what sparse rows added."""
        if self._pending is not None:
            self.sums, self._pending = self.sums + self._pending.tables, None
        return self.sums
