"""The No-U-Turn sampler over a batch of chains: trees grow leaf by leaf, in lockstep and without recursion.

All chains double at the same leaves, so which leaf is compared with which is the same for all and decided
outside the tensors; a chain whose tree is finished stays put until all are. What a step carries lies in one
tensor, chains innermost, so that a leaf costs one compiled call; memory is O(depth) such tensors.
"""

from typing import Any

import torch
from torch import Tensor

from inference.density import Batched
from inference.mcmc.chains import Chains, Kernel, Tuned, leapfrog, normal
from inference.mcmc.hmc import DIVERGED
from inference.mcmc.metric import whiten
from inference.mcmc.plan import Plan
from inference.mcmc.warmup import harmonic

# Rows of a state: x, n, F^T grad, sum of n, and the draw's x and grad, dim rows each; then for each chain the draw's
# log density and energy error, log weight, sum of acceptance probabilities, leaves, active, diverging, step, energy.
STATE = 6, 9
# Rows of a tree: x, n, F^T grad of its left end and of its right end, sum of n, and the draw's x and grad; then for
# each chain the draw's log density and energy error, log weight, doublings.
TREE = 9, 4


def kernel(batched: Batched, generator: torch.Generator, plan: Plan) -> Kernel:
    """Return the transition: fresh momenta, a tree doubled until it turns back, a draw among its leaves.

    Leaves weigh exp(-energy); within a subtree the draw is multinomial, between subtrees biased to the new one.
    A tree ends where n_first . sum(n) <= 0 or n_last . sum(n) <= 0, for itself, for a subtree of it, or for a
    half with the first leaf beyond; n are momenta in standard coordinates, in which velocity is momentum.

    Source: Hoffman, Gelman (2014); multinomial draws and the turning criterion: Betancourt (2017), A conceptual
    introduction to HMC, appendix A; iterative trees: Phan, Pradhan, Jankowiak (2019), algorithm 2.
    """
    return _Transition(batched, generator, plan.max_tree_depth)


class _Transition:
    """One tree for every chain."""

    def __init__(self, batched: Batched, generator: torch.Generator, max_depth: int) -> None:
        self.grow, self.begin, self.join = _Subtrees(batched), batched.fuse(begin), batched.fuse(merge)
        self.generator, self.max_depth = generator, max_depth

    def __call__(self, chains: Chains, tuned: Tuned, turn: int) -> tuple[Chains, dict[str, Tensor]]:
        x, log_prob, factor = chains.x, chains.log_prob, tuned.metric.factor
        n, size = normal(x.shape, self.generator, x), torch.full_like(log_prob, tuned.step_size)
        tree, state = self.begin(x, n, chains.grad, factor, log_prob, size, self.uniform(1, log_prob))
        for depth in range(self.max_depth):
            u = self.uniform(2**depth + 2, log_prob)  # (leaves + 2, C)
            opened, state, alive = self.grow(state, depth, factor, u)
            if alive:
                tree, state, alive = self.join(tree, opened, state, size, u[-2:])
            if not alive:
                break
        return _read(tree, state, tuned)

    def acceptance(self, rates: Tensor, progress: float) -> float:
        """Harmonic mean over the chains; after a third of the warm-up bounded below.

        At first one chain in a steep place must shorten the step of all, or it never leaves; later small steps
        for the sake of a few would mean long trees for all.
        """
        return harmonic(rates, least=1e-3 if progress < 1 / 3 else 0.1)

    def uniform(self, rows: int, like: Tensor) -> Tensor:
        """Uniform numbers, (rows, C)."""
        return torch.rand((rows, len(like)), generator=self.generator, dtype=like.dtype, device=like.device)


class _Subtrees:
    """Grow subtrees of 2^depth leaves, each chain's in its own direction.

    Leaf i ends a subtree of 2^level leaves for every level up to the number of ones that i ends in. The states
    that are compared then were kept by the number of ones in their index, which no later leaf has overwritten.
    """

    def __init__(self, batched: Batched) -> None:
        self.leap, self.turned = batched.fuse(leaf), batched.fuse(turned_back)

    def __call__(self, state: Tensor, depth: int, factor: Tensor, u: Tensor) -> tuple[Tensor, Tensor, bool]:
        """Return the states of the first and of the last leaf, and whether any chain's tree goes on."""
        opened, alive = state, True
        kept: list[tuple[Tensor, Tensor]] = [(state, state)] * (depth + 1)  # an even leaf, and the one before it
        flags = torch.tensor([False, True], device=state.device).unbind(0)
        for i, row in zip(range(2**depth), u, strict=False):
            before = state
            state, alive = self.leap(state, factor, row, flags[i & 1])
            opened = state if i == 0 else opened
            if not i & 1:
                kept[i.bit_count()] = state, before
            for level in range(2, (~i & (i + 1)).bit_length()):
                start, _ = kept[(i + 1 - 2**level).bit_count()]
                middle = kept[(i + 1 - 2 ** (level - 1)).bit_count()]
                state, alive = self.turned(state, start, *middle)
            if not alive:
                break
        return opened, state, bool(alive)


def begin(_: Any, x: Tensor, n: Tensor, grad: Tensor, factor: Tensor, log_prob: Tensor, size: Tensor, u: Tensor) -> Any:
    """Return the tree of one leaf, and the state from which it grows in a random direction."""
    zero, one, g = torch.zeros_like(log_prob), torch.ones_like(log_prob), whiten(factor, grad)
    energy = 0.5 * n.square().sum(1) - log_prob
    draw, tally = (x, grad), (zero, zero, one, zero)
    tree = _pack((x, n, g, x, n, g, n, *draw), (log_prob, zero, zero, zero))
    step, nothing = torch.where(u[0] < 0.5, size, -size), torch.full_like(zero, -torch.inf)
    return tree, _pack((x, n, g, torch.zeros_like(n), *draw), (log_prob, zero, nothing, *tally, step, energy))


def leaf(value_and_grad: Any, state: Tensor, factor: Tensor, u: Tensor, odd: Tensor) -> tuple[Tensor, Tensor]:
    """One leapfrog step; the new leaf is drawn in proportion to its weight, and an odd one compared with the last.

    Returns: the state, and whether any chain is active, ().
    """
    vectors, scalars = _unpack(state, STATE)
    x, n, g, total, draw_x, draw_grad = vectors
    draw_log_prob, draw_error, log_weight, acceptance, leaves, active, diverging, step, energy = scalars
    moved, new, g, grad, log_prob = leapfrog(value_and_grad, x, n, g, step[:, None], factor)
    error = 0.5 * new.square().sum(1) - log_prob - energy  # (C,)
    error, on = torch.where(error.isfinite(), error, torch.inf), active > 0
    weight = torch.logaddexp(log_weight, -error)
    take, diverged = on & (u.log() < -error - weight), on & (error > DIVERGED)
    going = on & ~diverged & ~(odd & _turns(n, new, n + new))
    vectors = (
        torch.where(on[:, None], moved, x),
        new,
        g,
        total + new,
        torch.where(take[:, None], moved, draw_x),
        torch.where(take[:, None], grad, draw_grad),
    )
    draw = torch.where(take, log_prob, draw_log_prob), torch.where(take, error, draw_error), weight
    acceptance = acceptance + torch.where(on, (-error).exp().clamp(max=1.0), 0.0)
    tally = acceptance, leaves + active, going.to(active), torch.maximum(diverging, diverged.to(active))
    return _pack(vectors, (*draw, *tally, step, energy)), going.any()


def turned_back(_: Any, state: Tensor, start: Tensor, middle: Tensor, before_middle: Tensor) -> tuple[Tensor, Tensor]:
    """End a chain whose subtree turns back, or one half of it with the other's nearest leaf.

    state, start: the subtree's last leaf and its first; middle: the first of its second half.
    Returns: the state, and whether any chain is active, ().
    """
    row = state.shape[0] - STATE[1] + 5
    last, total = _momentum(state)
    first, sum_first = _momentum(start)
    inner, _sum = _momentum(middle)
    outer, sum_outer = _momentum(before_middle)
    left, right = sum_outer - sum_first + first, total - sum_outer
    turned = _turns(first, last, left + right)
    turned = turned | _turns(first, inner, left + inner) | _turns(outer, last, right + outer)
    active = torch.where(turned, 0.0, state[row])
    return torch.cat([state[:row], active[None], state[row + 1 :]]), (active > 0).any()


def merge(_: Any, tree: Tensor, opened: Tensor, state: Tensor, size: Tensor, u: Tensor) -> tuple[Tensor, ...]:
    """Join a subtree, from leaf `opened` to leaf `state`, to the tree, and choose the next direction.

    size (C,), u (2, C).
    Returns: the tree, the state to grow from, and whether any chain is active, ().
    """
    ends, (log_prob, error, log_weight, doublings) = _unpack(tree, TREE)
    left, right, total, draw_x, draw_grad = ends[:3], ends[3:6], *ends[6:]
    end, scalars = _unpack(state, STATE)
    new_log_prob, new_error, new_weight, acceptance, leaves, active, diverging, step, energy = scalars
    n, new_total, (first, _sum) = end[1], end[3], _momentum(opened)
    on, ahead = active > 0, (step > 0)[:, None]
    near, far = torch.where(ahead, right[1], left[1]), torch.where(ahead, left[1], right[1])
    turned = _turns(far, n, total + new_total) | _turns(far, first, total + first) | _turns(near, n, new_total + near)
    take, forward = on & (u[0].log() < new_weight - log_weight), u[1] < 0.5
    left = tuple(torch.where(ahead, old, new) for old, new in zip(left, end[:3], strict=True))
    right = tuple(torch.where(ahead, new, old) for old, new in zip(right, end[:3], strict=True))
    draw = torch.where(take[:, None], end[4], draw_x), torch.where(take[:, None], end[5], draw_grad)
    level = torch.where(take, new_log_prob, log_prob), torch.where(take, new_error, error)
    whole = torch.logaddexp(log_weight, new_weight)
    grown = _pack((*left, *right, total + new_total, *draw), (*level, whole, doublings + active))
    here = tuple(torch.where(forward[:, None], r, b) for b, r in zip(left, right, strict=True))
    going, nothing = on & ~turned, torch.full_like(whole, -torch.inf)
    tally = acceptance, leaves, going.to(active), diverging, torch.where(forward, size, -size), energy
    return grown, _pack((*here, torch.zeros_like(n), *draw), (*level, nothing, *tally)), going.any()


def _turns(first: Tensor, last: Tensor, total: Tensor) -> Tensor:
    """Does a stretch of the trajectory with these momenta at its ends, and this sum of them, turn back?"""
    return ((first * total).sum(1) <= 0) | ((last * total).sum(1) <= 0)


def _momentum(state: Tensor) -> tuple[Tensor, Tensor]:
    """Momentum of a leaf and the sum of all up to it, each (C, dim)."""
    vectors, _ = _unpack(state, STATE)
    return vectors[1], vectors[3]


def _pack(vectors: tuple[Tensor, ...], scalars: tuple[Tensor, ...]) -> Tensor:
    """One tensor, (rows, C), of vectors (C, dim) and numbers (C,)."""
    return torch.cat([*(v.mT for v in vectors), torch.stack(scalars)])


def _unpack(packed: Tensor, layout: tuple[int, int]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """What `_pack` was given."""
    vectors, scalars = layout
    dim = (len(packed) - scalars) // vectors
    parts = packed[: vectors * dim].split(dim)
    return tuple(part.mT for part in parts), packed[vectors * dim :].unbind(0)


def _read(tree: Tensor, state: Tensor, tuned: Tuned) -> tuple[Chains, dict[str, Tensor]]:
    """The chains at their trees' draws, and what is reported of the trees."""
    vectors, (log_prob, error, _, doublings) = _unpack(tree, TREE)
    _, scalars = _unpack(state, STATE)
    acceptance, leaves, active, diverging, energy = *scalars[3:7], scalars[8]
    x, grad = (part.mT.contiguous().mT for part in vectors[7:])
    return Chains(x, log_prob.clone(), grad), {
        "lp": log_prob.clone(),
        "energy": energy + error,
        "energy_error": error.clone(),
        "acceptance_rate": acceptance / leaves,
        "diverging": diverging > 0,
        "n_steps": leaves.to(torch.int32),
        "tree_depth": doublings.to(torch.int32),
        "reached_max_treedepth": active > 0,
        "step_size": torch.full_like(error, tuned.step_size),
    }
