"""Symmetric block-tridiagonal matrices, such as the precision of a path in time, factored by halving.

Every second block is eliminated at once, then every second of those that are left: log2 T rounds of batched
operations in place of T small ones, at the same O(T P^3); a Python loop over bins costs ten times that. What is left
when a dense matrix costs no more than a round is factored as one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ppmodels.population._positive import cholesky

DENSE = 64  # rows up to which what is left is one matrix
NAMES = "smoothing", "the precision of a path"


@dataclass(frozen=True)
class Level:
    """The blocks that one round eliminates: L^-1, and L^-1 times the blocks to their left and right, (..., E, P, P)."""

    inverse: Tensor
    left: Tensor
    right: Tensor


@dataclass(frozen=True)
class BlockTridiagonal:
    """A positive definite matrix of T x T blocks (P, P), factored.

    levels: the rounds, from the whole on. rest: Cholesky factor of the last n blocks, (..., n P, n P).
    log_det: of the matrix, (...). size: P.
    """

    levels: tuple[Level, ...]
    rest: Tensor
    log_det: Tensor
    size: int

    @classmethod
    def factor(cls, diagonal: Tensor, below: Tensor) -> "BlockTridiagonal":
        """Factor the matrix with these blocks on the diagonal, (..., T, P, P), and below it, (..., T - 1, P, P).

        Raises: NotPositive when it is not positive definite.
        Source: Golub and Van Loan (2013), Matrix Computations, section 4.5.4, cyclic reduction.
        """
        levels, log_det = [], diagonal.new_zeros(diagonal.shape[:-3])
        while diagonal.shape[-3] > 1 and diagonal.shape[-3] * diagonal.shape[-1] > DENSE:
            odd = diagonal[..., 1::2, :, :]
            root = cholesky(diagonal[..., 0::2, :, :], *NAMES)
            eye = torch.eye(root.shape[-1], dtype=root.dtype, device=root.device).expand(root.shape)
            inverse = torch.linalg.solve_triangular(root, eye, upper=False)
            log_det = log_det + _log_det(root).sum(-1)
            evens, odds = root.shape[-3], odd.shape[-3]
            left = inverse @ _pad(below[..., 1::2, :, :], 1, evens)
            right = inverse @ _pad(below[..., 0::2, :, :].mT, 0, evens)
            levels.append(Level(inverse, left, right))
            from_left = right[..., :odds, :, :]
            odd = odd - from_left.mT @ from_left
            follow = left[..., 1:, :, :]
            odd = odd - _pad(follow.mT @ follow, 0, odds)
            below = -(right[..., 1:odds, :, :].mT @ left[..., 1:odds, :, :])
            diagonal = odd
        rest = cholesky(dense(diagonal, below), *NAMES)
        return cls(tuple(levels), rest, log_det + _log_det(rest), diagonal.shape[-1])

    def solve(self, right_side: Tensor) -> Tensor:
        """Return the inverse times (..., T, P, K)."""
        waiting, rest = [], right_side
        for level in self.levels:
            odd = rest[..., 1::2, :, :]
            half = level.inverse @ rest[..., 0::2, :, :]
            evens, odds = half.shape[-3], odd.shape[-3]
            odd = odd - level.right[..., :odds, :, :].mT @ half[..., :odds, :, :]
            rest = odd - _pad(level.left[..., 1:, :, :].mT @ half[..., 1:evens, :, :], 0, odds)
            waiting.append(half)
        size = rest.shape[-3:-1]
        rest = torch.cholesky_solve(rest.flatten(-3, -2), self.rest).unflatten(-2, size)
        for level, half in zip(reversed(self.levels), reversed(waiting), strict=True):
            evens = half.shape[-3]
            known = level.left @ _pad(rest, 1, evens) + level.right @ _pad(rest, 0, evens)
            rest = _interleave(level.inverse.mT @ (half - known), rest)
        return rest

    def covariance(self) -> tuple[Tensor, Tensor]:
        """Return the inverse's blocks on the diagonal, (..., T, P, P), and below it, (..., T - 1, P, P)."""
        whole = torch.cholesky_inverse(self.rest).unflatten(-1, (-1, self.size))
        whole = whole.unflatten(-3, (-1, self.size))  # (..., n, P, n, P)
        odd = whole.diagonal(0, -4, -2).movedim(-1, -3)
        step = whole.diagonal(-1, -4, -2).movedim(-1, -3)
        for level in reversed(self.levels):
            evens = level.inverse.shape[-3]
            to_left, to_right = level.inverse.mT @ level.left, level.inverse.mT @ level.right
            before, after = _pad(odd, 1, evens), _pad(odd, 0, evens)
            across = _pad(step, 1, evens)  # of the right neighbour with the left one
            with_left = -(to_left @ before + to_right @ across)
            with_right = -(to_left @ across.mT + to_right @ after)
            even = level.inverse.mT @ level.inverse - with_left @ to_left.mT - with_right @ to_right.mT
            step = _interleave(with_right[..., : odd.shape[-3], :, :].mT, with_left[..., 1:, :, :])
            odd = _interleave(even, odd)
        return odd, step


def dense(diagonal: Tensor, below: Tensor) -> Tensor:
    """Return the matrix of blocks on the diagonal, (..., T, P, P), and below it, whole: (..., T P, T P)."""
    blocks, size = diagonal.shape[-3:-1]
    strip = torch.cat([_pad(below, 1, blocks), diagonal, _pad(below.mT, 0, blocks)], -1).movedim(-3, -2)
    wide = torch.nn.functional.pad(strip, (0, blocks * size)).flatten(-2)  # (..., P, T (T + 3) P)
    rows = wide[..., : blocks * (blocks + 2) * size].unflatten(-1, (blocks, -1))  # each row a block further right
    return rows[..., size:-size].movedim(-2, -3).flatten(-3, -2)


def _log_det(root: Tensor) -> Tensor:
    return 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _pad(blocks: Tensor, before: int, length: int) -> Tensor:
    """So many zero blocks in front, and behind until there are `length`; what is too long is cut."""
    blocks = blocks[..., : length - before, :, :]
    after = length - before - blocks.shape[-3]
    return torch.nn.functional.pad(blocks, (0, 0, 0, 0, before, after)) if before or after else blocks


def _interleave(even: Tensor, odd: Tensor) -> Tensor:
    """Blocks 0, 2, 4, ... and 1, 3, 5, ... in one row."""
    evens, odds = even.shape[-3], odd.shape[-3]
    if odds < evens:
        odd = _pad(odd, 0, evens)
    pairs = torch.stack([even, odd.expand(even.shape)], -3)  # (..., E, 2, P, P)
    return pairs.flatten(-4, -3)[..., : evens + odds, :, :]
