"""Kernel classifiers: the perceptron in feature space, and the sign of a ridge regression."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ppmodels.kernels.functions import Kernel, check_points
from ppmodels.kernels.ridge import KernelRidge


@dataclass(frozen=True)
class KernelClassifier:
    """Scores of classes that are sums of similarities: the largest wins.

    x (N, D); alpha (N, C): each row's weight for each class; classes (C,), their labels.
    """

    kernel: Kernel
    x: Tensor
    alpha: Tensor
    classes: Tensor

    def scores(self, x: Tensor) -> Tensor:
        """Return each class's score at x (n, D), (n, C)."""
        return self.kernel(x.to(self.x), self.x) @ self.alpha

    def predict(self, x: Tensor) -> Tensor:
        """Return the label of each row, (n,)."""
        return self.classes[self.scores(x).argmax(-1)]


def ridge_classifier(x: Tensor, labels: Tensor, kernel: Kernel, penalty: float = 1e-2) -> KernelClassifier:
    """Return a ridge regression of each class's membership, coded -1 and 1; with two it is a sign."""
    x, classes, target = _targets(x, labels)
    return KernelClassifier(kernel, x, KernelRidge.fit(x, target, kernel, penalty).alpha, classes)


def perceptron_classifier(x: Tensor, labels: Tensor, kernel: Kernel, epochs: int = 100) -> KernelClassifier:
    r"""Return the kernel perceptron: a row that some class gets wrong is added to that class.

    .. math:: \alpha_{nc} \leftarrow \alpha_{nc} + t_{nc}
        \ \text{ where } t_{nc} \textstyle\sum_m \alpha_{mc} k(x_n, x_m) \le 0

    It stops by itself when the classes are separable in feature space.

    Source: Aizerman, Braverman and Rozonoer (1964).
    """
    x, classes, target = _targets(x, labels)
    gram, alpha = kernel(x), torch.zeros_like(target)
    for _ in range(epochs):
        mistakes = 0
        for row in range(len(x)):
            wrong = target[row] * (gram[row] @ alpha) <= 0  # (C,)
            alpha[row] += wrong * target[row]
            mistakes += int(wrong.any())
        if not mistakes:
            break
    return KernelClassifier(kernel, x, alpha, classes)


def _targets(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x = check_points(x)
    if labels.shape != x.shape[:1]:
        raise ValueError(f"labels must be ({len(x)},); they are {tuple(labels.shape)}")
    classes, index = labels.unique(return_inverse=True)
    if len(classes) < 2:
        raise ValueError("labels must name at least two classes")
    return x, classes, 2 * torch.nn.functional.one_hot(index, len(classes)).to(x) - 1
