"""Block-tridiagonal matrices whose blocks are alike but at the two ends: the precision of a path seen in all bins.

Stretches of bins between every s-th one are alike, so one dense inverse eliminates all of them at once; what is left,
T / s blocks, is factored as any block-tridiagonal matrix. Paths of all trials go through in a few large products.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ppmodels.population._positive import cholesky
from ppmodels.population.block_tridiagonal import DENSE, NAMES, BlockTridiagonal, dense


@dataclass(frozen=True)
class Spread:
    """Covariances summed over bins, (P, P) each: whole, of each bin; step, of each with the one before; first, last."""

    whole: Tensor
    step: Tensor
    first: Tensor
    last: Tensor


@dataclass(frozen=True)
class BlockToeplitz:
    """A positive definite matrix of T x T blocks (P, P), alike but for the first and the last, factored.

    inverse: of the matrix of one stretch, (K, K), K = (s - 1) P, or None without any. ends: that times its blocks with
    the bins to its left and right, (K, 2 P). rest: the bins between stretches and the few behind the last one.
    stretches: how many. log_det: of the matrix, ().
    """

    inverse: Tensor | None
    ends: Tensor | None
    rest: BlockTridiagonal
    stretches: int
    log_det: Tensor

    @classmethod
    def factor(cls, first: Tensor, inner: Tensor, last: Tensor, below: Tensor, bins: int) -> "BlockToeplitz":
        """Factor the matrix with these blocks (P, P): on the diagonal and, everywhere the same, below it.

        first: also what the matrix is where there is one block.

        Raises: NotPositive when it is not positive definite.
        """
        size = len(inner)
        stride, stretches = _partition(bins, size)
        behind = bins - 1 - stride * stretches
        if not stretches:
            diagonal = torch.cat([first[None], inner.expand(bins - 2, -1, -1), last[None]]) if bins > 1 else first[None]
            rest = BlockTridiagonal.factor(diagonal, below.expand(bins - 1, -1, -1))
            return cls(None, None, rest, 0, rest.log_det)
        root = cholesky(dense(inner.expand(stride - 1, -1, -1), below.expand(stride - 2, -1, -1)), *NAMES)
        inverse = torch.cholesky_inverse(root)
        ends = torch.cat([inverse[:, :size] @ below, inverse[:, -size:] @ below.mT], 1)
        left = below.mT @ ends[:size, :size]  # what a stretch takes from the bin to its left
        right = below @ ends[-size:, size:]
        across = -(below @ ends[-size:, :size])  # the bin to its right with that to its left
        middle = (inner - left - right).expand(stretches - 1, -1, -1)
        tail = [inner.expand(behind - 1, -1, -1), last[None]] if behind else []
        diagonal = torch.cat([(first - left)[None], middle, ((inner if behind else last) - right)[None], *tail])
        lower = torch.cat([across.expand(stretches, -1, -1), below.expand(behind, -1, -1)])
        rest = BlockTridiagonal.factor(diagonal, lower)
        log_det = rest.log_det + 2 * stretches * root.diagonal().log().sum()
        return cls(inverse, ends, rest, stretches, log_det)

    def solve(self, right_side: Tensor) -> Tensor:
        """Return the inverse times each of (R, T, P)."""
        if self.inverse is None or self.ends is None:
            return self._rest(right_side)
        size, bins = self.rest.size, self._inside
        body = right_side[:, :bins].unflatten(1, (self.stretches, -1))  # (R, G, s, P)
        through = body[:, :, 1:].reshape(-1, len(self.inverse)) @ torch.cat([self.ends, self.inverse], 1)
        pushed, within = through.split([2 * size, len(self.inverse)], 1)  # (R G, 2 P), (R G, K)
        pushed = pushed.unflatten(0, body.shape[:2])
        between = torch.cat([body[:, :, 0], right_side[:, bins:]], 1)
        behind = between.shape[1] - self.stretches
        none = between.new_zeros(len(between), behind, size)
        taken = torch.cat([pushed[..., :size], none], 1) + torch.cat([none[:, :1], pushed[..., size:], none[:, 1:]], 1)
        between = self._rest(between - taken)
        sides = torch.cat([between[:, : self.stretches], between[:, 1 : self.stretches + 1]], -1)  # (R, G, 2 P)
        within = torch.addmm(within, sides.flatten(0, 1), self.ends.mT, alpha=-1)
        within = within.reshape(*body.shape[:2], -1, size)
        body = torch.cat([between[:, : self.stretches, None], within], 2).flatten(1, 2)
        return torch.cat([body, between[:, self.stretches :]], 1)

    def covariance(self) -> tuple[Tensor, Tensor]:
        """Return the inverse's blocks on the diagonal, (T, P, P), and below it, (T - 1, P, P)."""
        own, step = self.rest.covariance()
        if self.inverse is None or self.ends is None:
            return own, step
        groups = self.stretches
        ends = self.ends.unflatten(0, (-1, self.rest.size))  # (s - 1, P, 2 P)
        with_sides, to_left, to_right = self._with_sides(own[:groups], own[1 : groups + 1], step[:groups])
        within = self._blocks(0) - with_sides @ ends.mT
        steps = self._blocks(-1) - with_sides[:, 1:] @ ends[:-1].mT
        own_body = torch.cat([own[:groups, None], within], 1).flatten(0, 1)
        step_body = torch.cat([to_left[:, None], steps, to_right[:, None]], 1).flatten(0, 1)
        return torch.cat([own_body, own[groups:]]), torch.cat([step_body, step[groups:]])

    def spread(self, trials: int = 1) -> Spread:
        """Return the sums of what `covariance` returns, over so many trials; all stretches at the cost of one."""
        own, step = (trials * part for part in self.rest.covariance())
        if self.inverse is None or self.ends is None:
            return Spread(own.sum(0), step.sum(0), own[0], own[-1])
        groups, number = self.stretches, trials * self.stretches
        ends = self.ends.unflatten(0, (-1, self.rest.size))
        sums = (part.sum(0) for part in (own[:groups], own[1 : groups + 1], step[:groups]))
        with_sides, to_left, to_right = self._with_sides(*sums)
        within = number * self._blocks(0) - with_sides @ ends.mT
        steps = number * self._blocks(-1) - with_sides[1:] @ ends[:-1].mT
        whole = own.sum(0) + within.sum(0)
        return Spread(whole, step[groups:].sum(0) + to_left + steps.sum(0) + to_right, own[0], own[-1])

    def _with_sides(self, left: Tensor, right: Tensor, across: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Minus the covariances of a stretch with the bins at its sides, (..., s - 1, P, 2 P), from those of these.

        left, right (..., P, P): of each of the two. across: of the right with the left one. Returned too, their
        covariances with its nearest bin: of its first with the left, of the right with its last, (..., P, P).
        """
        assert self.ends is not None
        sides = torch.cat([torch.cat([left, across.mT], -1), torch.cat([across, right], -1)], -2)
        size = self.rest.size
        both = -(self.ends @ sides).unflatten(-2, (-1, size))
        return both, both[..., 0, :, :size], both[..., -1, :, size:].mT

    def _blocks(self, offset: int) -> Tensor:
        """The blocks on or below the diagonal of a stretch's inverse, (s - 1, P, P) or one fewer."""
        assert self.inverse is not None
        size = self.rest.size
        blocks = self.inverse.unflatten(1, (-1, size)).unflatten(0, (-1, size))  # (s - 1, P, s - 1, P)
        return blocks.diagonal(offset, 0, 2).movedim(-1, 0)

    @property
    def _inside(self) -> int:
        """Bins up to the end of the last stretch."""
        assert self.inverse is not None
        return self.stretches * (len(self.inverse) // self.rest.size + 1)

    def _rest(self, right_side: Tensor) -> Tensor:
        """The rest's inverse times each of (R, n, P), as columns of one right-hand side."""
        return self.rest.solve(right_side.permute(1, 2, 0)).permute(2, 0, 1)


def _partition(bins: int, size: int) -> tuple[int, int]:
    """Return the distance s of the bins between stretches and the number of these, with the fewest blocks left."""
    if bins * size <= DENSE:
        return 1, 0
    longest = min(DENSE // size + 1, bins - 1)
    stride = min(range(1, longest + 1), key=lambda s: s * bins + size * ((bins - 1) // s + (bins - 1) % s) ** 2)
    return (stride, (bins - 1) // stride) if stride > 1 else (1, 0)
