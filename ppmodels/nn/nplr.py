"""Normal plus low rank: the form in which HiPPO's matrices become diagonal plus low rank."""

from typing import NamedTuple

import torch
from torch import Tensor

from ppmodels.nn.hippo import low_rank, transition


class DPLR(NamedTuple):
    """A = V (Lambda - P P*) V*, with V unitary, in the basis of V.

    eigenvalues: Lambda, complex (N,).
    low_rank: P, complex (R, N); R is 1 for legs and fout, 2 for legt.
    input: V* B, complex (N,).
    vectors: V, complex (N, N); column j belongs to eigenvalue j.
    """

    eigenvalues: Tensor
    low_rank: Tensor
    input: Tensor
    vectors: Tensor

    def dense(self) -> tuple[Tensor, Tensor]:
        """The matrix A (N, N) and the input B (N,) that this is a form of, both real up to rounding."""
        outer = self.low_rank.mT @ self.low_rank.conj()  # (N, N)
        inner = torch.diag(self.eigenvalues) - outer
        return self.vectors @ inner @ self.vectors.mH, self.vectors @ self.input


def nplr(measure: str, states: int) -> DPLR:
    """Diagonalise the normal part of a HiPPO matrix; eigenvalues by rising imaginary part.

    The normal part is a multiple of the identity plus a skew-symmetric S, so the Hermitian -iS gives an
    orthonormal basis; a general eigensolver would lose half the digits at 64 states.

    Source: Gu, Goel and Ré (2022), arXiv:2111.00396, theorem 1.
    """
    a, b = transition(measure, states)
    p = low_rank(measure, states)  # (R, N)
    normal = a + p.mT @ p
    frequency, vectors = torch.linalg.eigh(-0.5j * (normal - normal.mT))
    vectors = _pair_null_space(frequency, vectors)
    eigenvalues = torch.complex(normal.diagonal().mean().expand(states), frequency)
    inverse = vectors.mH
    return DPLR(eigenvalues, p.to(vectors.dtype) @ inverse.mT, inverse @ b.to(vectors.dtype), vectors)


def conjugate_half(form: DPLR) -> DPLR:
    """Keep one of each conjugate pair, the one with the larger imaginary part: (N / 2,) modes.

    A real signal is then twice the real part of a sum over the half.

    Raises: ValueError when the number of states is odd, so that one is without partner.
    """
    states = len(form.eigenvalues)
    if states % 2:
        raise ValueError(f"conjugate pairs need an even number of states; got {states}")
    upper = slice(states // 2, states)
    return DPLR(form.eigenvalues[upper], form.low_rank[:, upper], form.input[upper], form.vectors[:, upper])


def _pair_null_space(frequency: Tensor, vectors: Tensor) -> Tensor:
    """Make the two eigenvectors of a double eigenvalue zero each other's conjugate, as all others are."""
    null = frequency.abs() < 1e-9 * (1 + frequency.abs().max())
    if null.sum() != 2:
        return vectors
    projector = (vectors[:, null] @ vectors[:, null].mH).real  # (N, N)
    real = torch.linalg.eigh(projector).eigenvectors[:, -2:]  # (N, 2)
    first, second = real.unbind(-1)
    vectors = vectors.clone()
    vectors[:, null] = torch.stack([torch.complex(first, -second), torch.complex(first, second)], -1) / 2**0.5
    return vectors
