"""What kernel PCA has to do with spectral embedding: the energy of springs between similar points."""

import torch
from torch import Tensor


def elastic_energy(gram: Tensor, u: Tensor) -> Tensor:
    r"""Return :math:`\sum_{ij} K_{ij} |u_i - u_j|^2 = 2\, \mathrm{tr}\, u^\top (D - K) u`, () of u (N,) or (N, Q)."""
    u = u.reshape(len(gram), -1)
    return 2 * (u * (laplacian(gram) @ u)).sum()


def laplacian(gram: Tensor) -> Tensor:
    """Return D - K with the degrees D = diag(K 1), (N, N)."""
    return gram.sum(1).diag() - gram


def laplacian_eigenmaps(gram: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """Return the smallest eigenvalues but the first, (Q,), and the coordinates, (N, Q), of (D - K) u = lambda D u.

    The coordinates make the springs' energy least, at u'Du = 1 and orthogonal to a constant.
    gram: similarities, none of them negative.
    Raises: ValueError for a negative similarity, a point without any, or too many components.
    Source: Belkin and Niyogi (2003), Neural Computation 15.
    """
    if not 1 <= components < len(gram):
        raise ValueError(f"components must be 1 to {len(gram) - 1}; it is {components}")
    degree = gram.sum(1)
    if (gram < 0).any() or (degree <= 0).any():
        raise ValueError("similarities must not be negative, and every point needs one that is positive")
    scale = degree.rsqrt()
    values, vectors = torch.linalg.eigh(scale[:, None] * laplacian(gram) * scale)
    return values[1 : components + 1], (scale[:, None] * vectors)[:, 1 : components + 1]
