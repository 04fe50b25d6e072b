"""Rosenblatt's rule, its bound on mistakes, and its descendants: averaged, voted, pocket, with a margin, with a kernel.

Everywhere a unit fires, f = 1, where its input is 0 or more; labels are 0 and 1, or -1 and 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SEPARATE_STEPS = 10_000  # passes


@dataclass(frozen=True)
class Perceptron:
    """A threshold unit, and how it came about.

    weights (D,); bias (); updates: mistakes that were learned from; path: the weights with the bias in front after
    each, (T + 1, D + 1); separated: whether the last pass had no mistake. survived: rows that each entry of the path
    saw before it changed, (T + 1,).
    """

    weights: Tensor
    bias: Tensor
    updates: int
    path: Tensor
    separated: bool
    survived: Tensor

    def score(self, x: Any) -> Tensor:
        """Return the input of the unit, (N,)."""
        return torch.as_tensor(x).to(self.weights) @ self.weights + self.bias

    def predict(self, x: Any) -> Tensor:
        """Return 0 or 1, (N,); 1 where the input is 0 or more."""
        return (self.score(x) >= 0).long()

    def averaged(self) -> "Perceptron":
        """Return the unit with the mean of all weights it had, each as long as it survived.

        Source: Freund and Schapire (1999), Machine Learning 37.
        """
        share = self.survived / self.survived.sum()
        mean = share @ self.path
        return Perceptron(mean[1:], mean[0], self.updates, self.path, self.separated, self.survived)

    def voted(self, x: Any) -> Tensor:
        """Return the majority's class of all units there were, each with as many votes as rows it survived, (N,)."""
        x = torch.as_tensor(x).to(self.weights)
        vote = torch.where(x @ self.path[:, 1:].mT + self.path[:, 0] >= 0, 1.0, -1.0).to(x)  # (N, T + 1)
        return (vote @ self.survived >= 0).long()


def perceptron(x: Any, y: Any, *, lr: float = 1.0, num_steps: int = SEPARATE_STEPS, margin: float = 0.0) -> Perceptron:
    r"""Learn from each mistake, row by row, until a pass has none.

    .. math:: w \leftarrow w + \eta (y_n - f_n) x_n,\; b \leftarrow b + \eta (y_n - f_n),\; y_n \in \{0, 1\}

    or, which is the same with labels of -1 and 1, by eta y x. Where some w* of unit length has y w*'x >= gamma in all
    rows, and |x| <= R (with the constant 1 in x), there are at most (R / gamma)^2 mistakes.

    num_steps: passes at most. margin: a row also counts as a mistake when y w'x <= margin; at margin 0 the threshold
    is that of `predict`.
    Source: Rosenblatt (1958); Novikoff (1962); Krauth and Mezard (1987) on the margin.
    """
    rows, sign = _with_constant(x, y)
    weights, path, survived = rows.new_zeros(rows.shape[1]), [rows.new_zeros(rows.shape[1])], [0.0]
    clean = False
    for _ in range(num_steps):
        clean = True
        for x_n, y_n in zip(rows, sign.tolist(), strict=True):
            value = float(weights @ x_n)
            fires = 1.0 if value >= 0 else -1.0
            survived[-1] += 1
            if fires != y_n or (margin and y_n * value <= margin):
                weights, clean = weights + lr * y_n * x_n, False
                path.append(weights)
                survived.append(0.0)
        if clean:
            break
    return Perceptron(
        weights[1:], weights[0], len(path) - 1, torch.stack(path), clean, torch.tensor(survived).to(weights)
    )


def pocket(x: Any, y: Any, *, num_steps: int = 100) -> Perceptron:
    """Return the best of all units the rule went through: for classes that no plane separates.

    Source: Gallant (1990), IEEE Transactions on Neural Networks 1.
    """
    found = perceptron(x, y, num_steps=num_steps)
    rows, sign = _with_constant(x, y)
    right = (torch.where(rows @ found.path.mT >= 0, 1.0, -1.0) == sign[:, None]).sum(0)  # (T + 1,)
    best = found.path[int(right.argmax())]
    return Perceptron(best[1:], best[0], found.updates, found.path, found.separated, found.survived)


def mistake_bound(x: Any, y: Any, direction: Any) -> float:
    """Return (R / gamma)^2 of a separating direction, (D + 1,), whose first entry is the bias.

    Raises: ValueError when it does not separate; it names the first row on the wrong side.
    """
    rows, sign = _with_constant(x, y)
    unit = torch.as_tensor(direction).to(rows)
    margins = sign * (rows @ (unit / unit.norm()))
    wrong = (margins <= 0).nonzero()
    if len(wrong):
        raise ValueError(f"row {int(wrong[0])} is on the wrong side of this direction")
    return float(rows.square().sum(-1).max() / margins.min() ** 2)


def kernel_perceptron(
    x: Any, y: Any, kernel: Callable[[Tensor, Tensor], Tensor], *, num_steps: int = 1000
) -> tuple[Tensor, bool]:
    """Return how often each row was learned from, with its sign, alpha (N,), and whether the classes are separated.

    A row's score is the sum over m of alpha_m kernel(x_m, x): the rule in the kernel's space of features.
    Source: Aizerman, Braverman and Rozonoer (1964).
    """
    rows, sign = _with_constant(x, y)
    gram = kernel(rows[:, 1:], rows[:, 1:])
    alpha, clean = rows.new_zeros(len(rows)), False
    for _ in range(num_steps):
        clean = True
        for n, y_n in enumerate(sign.tolist()):
            if (1.0 if float(gram[n] @ alpha) >= 0 else -1.0) != y_n:
                alpha[n] += y_n
                clean = False
        if clean:
            break
    return alpha, clean


def _with_constant(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Rows with a constant 1 in front, (N, D + 1), and labels of -1 and 1, (N,).

    Raises: ValueError that names the first row whose label is none, or whose value is not finite.
    """
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    x = x if x.is_floating_point() else x.double()
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise ValueError(f"want x (N, D) and y (N,); got {tuple(x.shape)} and {tuple(y.shape)}")
    low = -1 if (y == -1).any() else 0
    wrong = (~(((y == low) | (y == 1)) & x.isfinite().all(1))).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(f"row {row} has label {y[row].item()} and values {x[row].tolist()}; want {low} or 1, finite")
    return torch.cat([torch.ones_like(x[:, :1]), x], -1), torch.where(y == 1, 1.0, -1.0).to(x)
