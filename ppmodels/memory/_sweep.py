"""Sweeps over the units of a network, for many states at once: by blocks of matrix products, or by one."""

import torch
from torch import Tensor

BLOCK = 256  # units whose fields are computed by one product


def settle(field: Tensor, state: Tensor, levels: tuple[float, float]) -> Tensor:
    """Return what each unit becomes: high above a field of 0, low below, and what it was at 0."""
    low, high = levels
    return torch.where(field > 0, high, torch.where(field < 0, low, state))


def sweep(
    weights: Tensor,
    bias: Tensor,
    state: Tensor,
    levels: tuple[float, float],
    beta: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Update unit after unit, in place; state (B, N). Return which states changed, (B,).

    The fields of a block come from one product. Where no state has a unit in the block that wants to
    flip, the block is done; else its units take their turns.
    beta: draw each unit from its conditional of exp(-beta E) instead: it is high with probability
    sigmoid(beta (high - low) h), so where h exceeds logit(u) / (beta (high - low)).
    """
    low, range_ = levels[0], levels[1] - levels[0]
    changed = torch.zeros(len(state), dtype=torch.bool, device=state.device)
    bits = (state - low) / range_
    for start in range(0, state.shape[1], BLOCK):
        part = slice(start, start + BLOCK)
        before, inside = bits[:, part], weights[part, part]  # (B, b), (b, b)
        field = torch.addmm(bias[part], state, weights[part].mT)  # (B, b)
        if beta is not None:
            noise = torch.rand(field.shape, generator=generator, dtype=field.dtype, device=field.device)
            if beta:
                field -= (noise.log() - (-noise).log1p()) / (beta * range_)
            new = _in_turn(field, before, inside, range_) if beta else (noise < 0.5).to(state)
            state[:, part] = low + range_ * new
            continue
        wished = torch.heaviside(field, before)  # what is at 0 stays as it was
        if torch.equal(wished, before):
            continue
        wanting = (wished != before).any(1)  # (B,)
        rows = slice(None) if wanting.all() else wanting
        state[rows, part] = low + range_ * _in_turn(field[rows], before[rows], inside, range_)
        changed |= wanting
    return changed


def _in_turn(field: Tensor, bits: Tensor, inside: Tensor, step: float) -> Tensor:
    """Return what units of 0 and 1 are, (B, b), after each of a block had its turn; inside (b, b).

    At its turn a unit feels the units before it as they are by then, and those behind it as they were: a triangular
    system. What solves it is found by rounds, each of which settles at least one unit more for good; a few do.
    step: by how much a unit's coupling is felt more when it is 1.
    """
    earlier, new = inside.tril(-1).mT, torch.heaviside(field, bits)
    for _ in range(len(inside)):
        again = torch.heaviside(torch.addmm(field, new - bits, earlier, alpha=step), bits)
        if torch.equal(again, new):
            break
        new = again
    return new


def synchronous_sweep(
    weights: Tensor, bias: Tensor, state: Tensor, levels: tuple[float, float], sweeps: int
) -> tuple[Tensor, Tensor, int]:
    """Update all units at once until every state rests or alternates; return states, periods and sweeps done."""
    before = torch.full_like(state, float("nan"))
    rests = alternates = torch.zeros(len(state), dtype=torch.bool)
    for done in range(1, sweeps + 1):
        after = settle(torch.addmm(bias, state, weights.mT), state, levels)
        rests, alternates = (after == state).all(1), (after == before).all(1)
        before, state = state, after
        if (rests | alternates).all():
            return state, torch.where(rests, 1, 2), done
    return state, torch.where(rests, 1, torch.where(alternates, 2, 0)), sweeps
