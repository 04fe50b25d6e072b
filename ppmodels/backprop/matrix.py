"""Matrices as lists of rows, of floats or of nodes; and the backward pass of a linear layer, written out."""

from collections.abc import Sequence
from typing import Any

from ppmodels.backprop.operations import add, exp, inner, logsumexp, subtract

Matrix = Sequence[Sequence[Any]]


def matmul(a: Matrix, b: Matrix) -> list[list[Any]]:
    """Return a b; every entry is one operation on the tape.

    Raises: ValueError when their shapes do not meet.
    """
    if any(len(row) != len(b) for row in a):
        raise ValueError(f"cannot multiply rows of {len(a[0])} by {len(b)} rows")
    columns = transpose(b)
    return [[inner(*row, *column) for column in columns] for row in a]


def transpose(a: Matrix) -> list[list[Any]]:
    """Return the rows as columns."""
    return [list(column) for column in zip(*a, strict=True)]


def linear(x: Matrix, weight: Matrix, bias: Sequence[Any]) -> list[list[Any]]:
    """Return x weight' + bias: x (N, D), weight (M, D), bias (M,) give (N, M)."""
    return [[add(y, b) for y, b in zip(row, bias, strict=True)] for row in matmul(x, transpose(weight))]


def linear_backward(delta: Matrix, x: Matrix, weight: Matrix) -> tuple[Matrix, Matrix, list[float]]:
    r"""Return dX = delta W, dW = delta' X, db = sum of delta's rows, for y = x W' + b and delta = dz/dy.

    The same numbers as the tape's, without a tape: each is one matrix product.
    """
    return (
        matmul(delta, weight),
        matmul(transpose(delta), x),
        [sum(column) for column in zip(*delta, strict=True)],
    )


def softmax(logits: Sequence[Any]) -> list[Any]:
    """Return exp(x_k) / sum exp(x); stable at any size."""
    total = logsumexp(*logits)
    return [exp(subtract(x, total)) for x in logits]


def cross_entropy(logits: Sequence[Any], target: int) -> Any:
    """Return -log softmax(logits)[target].

    Raises: ValueError when there is no such class.
    """
    if not 0 <= target < len(logits):
        raise ValueError(f"target must be a class from 0 to {len(logits) - 1}; it is {target}")
    return subtract(logsumexp(*logits), logits[target])
