"""Sums of exponentials over a long line of times, as one matrix product."""

import torch
from torch import Tensor


def vandermonde(weights: Tensor, exponents: Tensor, length: int) -> Tensor:
    r"""The kernel of a diagonal system, without its (N, L) Vandermonde matrix.

    .. math:: K_l = 2\,\mathrm{Re} \sum_n w_n e^{l z_n},\quad e^{(qR + r) z} = e^{qRz} e^{rz}

    With l = qR + r and R near sqrt(L) the sum is a (Q, 2N) by (2N, R) real matrix product, and only Q + R
    exponentials a mode are needed: O(N sqrt(L) + L) memory a channel. Real weights and exponents leave out
    the 2 Re. Exponentials are few, so they are taken in double precision; the product is in the weights' own.

    weights: (..., H, N). exponents: z, (H, N), best in double precision.
    Returns: (..., H, L).
    """
    short = _short(length)
    long = -(-length // short)
    if exponents.is_complex():
        # conj(a) as reals times b as reals is Re(a b): no sign to carry.
        left = powers(conjugate(exponents) * short, long, weights.dtype)  # (H, Q, N)
        left = torch.view_as_real(left * 2 * conjugate(weights)[..., None, :]).flatten(-2)  # (..., H, Q, 2N)
        right = torch.view_as_real(powers(exponents, short, weights.dtype)).flatten(-2)  # (H, R, 2N)
    else:
        left = powers(exponents * short, long, weights.dtype) * weights[..., None, :]  # (..., H, Q, N)
        right = powers(exponents, short, weights.dtype)  # (H, R, N)
    return (left @ right.mT).flatten(-2)[..., :length]


def final_state(signal: Tensor, exponents: Tensor) -> Tensor:
    r"""The state of a diagonal system after a signal, :math:`x_n = \sum_l e^{(L-1-l) z_n} u_l`.

    signal: (..., H, L). exponents: z, (H, N). Returns: (..., H, N), complex when z is.
    """
    length = signal.shape[-1]
    short = _short(length)
    long = -(-length // short)
    backwards = torch.nn.functional.pad(signal, (long * short - length, 0)).flip(-1)
    blocks = backwards.unflatten(-1, (long, short))  # (..., H, Q, R)
    kind = exponents.to(torch.complex64 if exponents.is_complex() else torch.float32).dtype
    dtype = torch.promote_types(signal.dtype, kind)
    inner = powers(exponents, short, dtype)  # (H, R, N)
    if exponents.is_complex():
        inner = torch.view_as_complex((blocks @ torch.view_as_real(inner).flatten(-2)).unflatten(-1, (-1, 2)))
    else:
        inner = blocks @ inner  # (..., H, Q, N)
    return (powers(exponents * short, long, dtype) * inner).sum(-2)


def powers(exponents: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """exp(k z) for k < count, (..., count, N): an outer product of two short sets of exponentials."""
    short = _short(count)
    long = -(-count // short)
    wide = exponents.to(torch.complex128 if exponents.is_complex() else torch.float64)
    index = torch.arange(max(short, long), device=wide.device, dtype=torch.float64)[:, None]
    coarse = torch.exp(wide[..., None, :] * (short * index[:long])).to(dtype)  # (..., long, N)
    fine = torch.exp(wide[..., None, :] * index[:short]).to(dtype)  # (..., short, N)
    return (coarse[..., :, None, :] * fine[..., None, :, :]).flatten(-3, -2)[..., :count, :]


def conjugate(x: Tensor) -> Tensor:
    """Complex conjugate by parts: torch's own cannot be batched, and so not be run for many weights at once."""
    return torch.complex(x.real, -x.imag)


def _short(length: int) -> int:
    """A power of two near the square root."""
    return 1 << ((max(length - 1, 0).bit_length() + 1) // 2)
