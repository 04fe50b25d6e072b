"""Sums of squares and products of columns, as a triangular root: which loses no digits, and adds."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Squares:
    r"""An upper triangular root, (P, P), of the products of P columns over rows; those of two sets of rows add.

    .. math:: R^\top R = A^\top A, \quad A^\top A + B^\top B = [R_A; R_B]^\top [R_A; R_B]

    Source: Golub and Van Loan (2013), Matrix Computations, section 6.5.
    """

    root: Tensor
    rows: int

    @classmethod
    def of(cls, columns: Tensor) -> "Squares":
        """Return those of columns (N, P)."""
        short = max(0, columns.shape[1] - len(columns))
        padded = torch.cat([columns, columns.new_zeros(short, columns.shape[1])]) if short else columns
        return cls(torch.linalg.qr(padded, mode="r").R, len(columns))

    def __add__(self, other: "Squares") -> "Squares":
        return Squares(torch.linalg.qr(torch.cat([self.root, other.root]), mode="r").R, self.rows + other.rows)

    def regress(self, ridge: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return how the last column depends on the others with this ridge on each, (Q,).

        Returns: also the root (Q, Q), upper, of their products and ridge^2 I; and the least misfit, ridge and all, ().
        """
        penalty = torch.full_like(self.root[0], ridge)
        penalty[-1] = 0.0
        whole = (self + Squares(penalty.diag(), 0)).root  # (Q + 1, Q + 1)
        root = whole[:-1, :-1]
        return torch.linalg.solve_triangular(root, whole[:-1, -1:], upper=True)[:, 0], root, whole[-1, -1].square()
