"""The kernel of a diagonal-plus-low-rank system, by Cauchy products and Woodbury's identity."""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ppmodels.nn.vandermonde import conjugate

BLOCK = 1 << 20  # elements of one block of the Cauchy matrix, so that memory does not grow with N times L


def dplr_kernel(
    eigenvalues: Tensor, p: Tensor, q: Tensor, b: Tensor, c_tilde: Tensor, step: Tensor, length: int
) -> Tensor:
    r"""K_l = C A_bar^l B_bar for l < L, bilinear, from its discrete Fourier transform at the roots of unity.

    Only one of each conjugate pair is given. C tilde = C (I - A_bar^L) truncates the series at L.
    No eigenvalue may be 0. O(N L) time. The Cauchy matrix is made block by block, again in the backward
    pass: O(N + L) is kept.

    eigenvalues, b, c_tilde: complex (H, N). p, q: A = Lambda - P Q*, complex (H, R, N). step: (H,).
    Returns: (H, L), real.
    Source: Gu, Goel and Ré (2022), arXiv:2111.00396, algorithm 1.
    """
    frequencies = length // 2 + 1
    angle = -2 * torch.pi * torch.arange(frequencies, device=b.device, dtype=torch.float64) / length
    nodes = torch.polar(torch.ones_like(angle), angle).to(eigenvalues.dtype)  # (F,)
    size = max(16, BLOCK // eigenvalues.numel())
    keep = frequencies <= size or not torch.is_grad_enabled()
    blocks = []
    for part in nodes.split(size):
        arguments = (eigenvalues, p, q, b, c_tilde, step, part)
        if keep:
            blocks.append(generating_function(*arguments))
        else:
            again = checkpoint(generating_function, *arguments, use_reentrant=False, preserve_rng_state=False)
            blocks.append(again)
    return torch.fft.irfft(torch.cat(blocks, -1), n=length)


def generating_function(
    eigenvalues: Tensor, p: Tensor, q: Tensor, b: Tensor, c: Tensor, step: Tensor, z: Tensor
) -> Tensor:
    r"""f(z) = sum_l z^l C A_bar^l B_bar = C (I - z A_bar)^{-1} B_bar, by Cauchy products k and Woodbury.

    .. math:: k(a, b) = \sum_n \frac{2\Delta\, a_n b_n}{2(1-z) - \Delta(1+z)\lambda_n},\quad s = (1 + z)/2

    .. math:: f = k(C, B) - s\, k(C, P) (I + s\, k(Q^*, P))^{-1} k(Q^*, B)

    This is the published form with 2/(1 + z) multiplied in, so that z = -1 is a point like any other.

    eigenvalues, b, c: one of each conjugate pair, (H, N). p, q: (H, R, N). step: (H,). z: (F,).
    Returns: (H, F).
    """
    rank = p.shape[-2]
    left = torch.cat([c[:, None], conjugate(q)], -2)  # (H, 1 + R, N)
    right = torch.cat([b[:, None], p], -2)  # (H, 1 + R, N)
    pairs = (left[:, :, None] * right[:, None]).flatten(1, 2)  # (H, (1 + R)^2, N)
    products = _cauchy(pairs, eigenvalues * step[:, None], z) * step[:, None, None]
    products = products.unflatten(1, (1 + rank, 1 + rank)).permute(1, 2, 0, 3)  # (1 + R, 1 + R, H, F)
    half = (1 + z) / 2
    if rank == 1:
        return products[0, 0] - half * products[0, 1] * products[1, 0] / (1 + half * products[1, 1])
    inner = (half * products[1:, 1:]).permute(2, 3, 0, 1) + torch.eye(rank, device=z.device)  # (H, F, R, R)
    solved = torch.linalg.solve(inner, products[1:, 0].permute(1, 2, 0))  # (H, F, R)
    return products[0, 0] - half * (products[0, 1:].permute(1, 2, 0) * solved).sum(-1)


def _cauchy(weights: Tensor, poles: Tensor, z: Tensor) -> Tensor:
    r"""sum_n 2 v_n / (alpha - beta mu_n) and the conjugate pair's, alpha = 2 (1 - z), beta = 1 + z.

    A pair has one real quadratic as denominator, alpha^2 - 2 alpha beta Re mu + beta^2 |mu|^2, and a real
    linear numerator: one complex reciprocal a pair, everything else a product of real matrices.

    weights: v, (H, K, N). poles: mu = Delta lambda, (H, N). Returns: (H, K, F).
    """
    alpha, beta = 2 * (1 - z), 1 + z
    squares = torch.view_as_real(torch.stack([alpha * beta, beta * beta])).flatten(1)  # (2, 2F)
    quadratic = torch.stack([-2 * poles.real, poles.real.square() + poles.imag.square()], -1)  # (H, N, 2)
    denominator = torch.view_as_real(alpha * alpha).flatten() + quadratic @ squares  # (H, N, 2F)
    denominator = torch.view_as_complex(denominator.unflatten(-1, (-1, 2)))
    inverse = torch.view_as_real(torch.reciprocal(denominator)).flatten(-2)  # (H, N, 2F)
    turned = weights * conjugate(poles)[:, None]
    numerator = 4 * torch.cat([weights.real, -turned.real], 1)  # (H, 2K, N)
    constant, linear = torch.view_as_complex((numerator @ inverse).unflatten(-1, (-1, 2))).chunk(2, 1)
    return alpha * constant + beta * linear


def real_form(eigenvalues: Tensor, p: Tensor, q: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same system on (Re x, Im x): A (H, 2N, 2N), B (H, 2N), C (H, 2N), all real."""
    rotation = torch.cat(
        [
            torch.cat([torch.diag_embed(eigenvalues.real), torch.diag_embed(-eigenvalues.imag)], -1),
            torch.cat([torch.diag_embed(eigenvalues.imag), torch.diag_embed(eigenvalues.real)], -1),
        ],
        -2,
    )
    column = torch.cat([p.real, p.imag], -1)  # (H, R, 2N)
    row = 2 * torch.cat([q.real, q.imag], -1)  # Q* x over the pairs is 2 Re(conj(q) x)
    return rotation - column.mT @ row, torch.cat([b.real, b.imag], -1), 2 * torch.cat([c.real, -c.imag], -1)


def truncate(c: Tensor, a_bar: Tensor, length: int) -> Tensor:
    """C tilde = C (I - A_bar^L): c (H, N), a_bar (H, N, N), by repeated squaring, O(N^3 log L)."""
    power, rest, square = c[..., None, :], length, a_bar
    while rest:
        if rest & 1:
            power = power @ square
        rest >>= 1
        if rest:
            square = square @ square
    return c - power[..., 0, :]


def untruncate(c_tilde: Tensor, a_bar: Tensor, length: int) -> Tensor:
    """C = C tilde (I - A_bar^L)^{-1}, the readout of the recurrence: the inverse of `truncate`."""
    identity = torch.eye(a_bar.shape[-1], dtype=a_bar.dtype, device=a_bar.device)
    rest = identity - torch.linalg.matrix_power(a_bar, length)
    return torch.linalg.solve(rest, c_tilde[..., None, :], left=False)[..., 0, :]
