"""Covariances and precisions that must be positive definite: where one is not, the step that met it is named."""

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # pyright: ignore[reportAttributeAccessIssue]


class NotPositive(LinAlgError, ArithmeticError):
    """A matrix that rounding or degenerate data left without a Cholesky factor, in one line."""

    def __init__(self, step: str, matrix: str) -> None:
        super().__init__(f"{step}: {matrix} is not positive definite; take fewer latents, or float64")


def cholesky(matrix: Tensor, step: str, name: str) -> Tensor:
    """Return the Cholesky factor of `matrix`, (..., P, P).

    Raises: NotPositive naming the step and the matrix.
    """
    try:
        return torch.linalg.cholesky(matrix)
    except LinAlgError:
        raise NotPositive(step, name) from None
