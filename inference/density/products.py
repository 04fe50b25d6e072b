"""Rules for matrix products over many chains: a factor that is the same for all meets the others side by side."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from inference.density.small_matrices import LARGEST

aten = torch.ops.aten
SMALL_PRODUCT = LARGEST**3  # multiplications up to which a matrix product is written out
LONG_PRODUCT, FEW_CHAINS = 20_000, 64  # entries of a matrix from which, and chains up to which, rows of chains pay
FEW_ROWS = 4  # up to which a fixed right factor is repeated for each, and the left one is not copied


def matrix_vector(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """One matrix for all chains: C products in one."""
    matrix, vector = flags[0]
    a, b = args
    if vector and not matrix:
        return _long(a, b) if a.numel() >= LONG_PRODUCT and b.shape[1] <= FEW_CHAINS else aten.mm.default(a, b)
    if a.shape[0] * a.shape[1] <= SMALL_PRODUCT:
        return (a * (b if vector else b[:, None])[None]).sum(1)  # (n, k, C) * (1, k, C) -> (n, C)
    return NotImplemented if vector else _right_fixed(a[None], b[None, :, None])[0, :, 0]


def matrix_matrix(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """The product of one pair of matrices."""
    product = batch_of_matrices(target, (args[0][None], args[1][None]), kwargs, flags)
    return product if product is NotImplemented else product[0]


def batch_of_matrices(target: Any, args: Any, kwargs: Any, flags: Any) -> Any:
    """Each chain's columns side by side where the left is fixed; small matrices are written out."""
    left, right = flags[0]
    a, b = args
    if right and not left:
        batch, inner, columns, chains = b.shape
        wide = b.reshape(batch, inner, columns * chains)
        made = aten.mm.default(a[0], wide[0])[None] if batch == 1 else aten.bmm.default(a, wide)
        return made.reshape(batch, a.shape[1], columns, chains)
    if a.shape[1] * a.shape[2] * b.shape[2] <= SMALL_PRODUCT:
        b = b if right else b[..., None]
        return (a[:, :, :, None] * b[:, None]).sum(2)  # (B, n, k, 1, C) * (B, 1, k, m, C) -> (B, n, m, C)
    return NotImplemented if right else _right_fixed(a, b)


def _long(a: Tensor, b: Tensor) -> Tensor:
    """A b, (n, k) times (k, C), by rows of chains: BLAS is two to three times as fast with few long rows."""
    return aten.mm.default(b.mT.contiguous(), a.mT).mT


def _right_fixed(a: Tensor, b: Tensor) -> Tensor:
    """A b through the transposed product: a (B, n, k, C), b (B, k, m) -> (B, n, m, C)."""
    batch, rows, inner, chains = a.shape
    columns = b.shape[2]
    if rows <= FEW_ROWS:
        again = b.mT.unsqueeze(1).expand(batch, rows, columns, inner).reshape(batch * rows, columns, inner)
        made = aten.bmm.default(again, a.reshape(batch * rows, inner, chains))  # (B n, m, C)
        return made.reshape(batch, rows, columns, chains)
    wide = a.transpose(1, 2).reshape(batch, inner, rows * chains)
    made = aten.mm.default(b[0].mT, wide[0])[None] if batch == 1 else aten.bmm.default(b.mT, wide)  # (B, m, n C)
    return made.reshape(batch, columns, rows, chains).transpose(1, 2)


PRODUCTS: dict[Any, Callable[..., Any]] = {
    aten.mv.default: matrix_vector,
    aten.mm.default: matrix_matrix,
    aten.bmm.default: batch_of_matrices,
}
