"""Sweeps over the units of a network, for many states at once: by blocks of matrix products, or by one."""

import torch
from torch import Tensor

BLOCK = 128  # units whose fields are computed by one product


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
    flip, the block is done; else its units are visited in turn, and a flip corrects the fields in the block.
    beta: draw each unit from its conditional of exp(-beta E) instead.
    """
    changed = torch.zeros(len(state), dtype=torch.bool, device=state.device)
    for start in range(0, state.shape[1], BLOCK):
        part = slice(start, start + BLOCK)
        field = torch.addmm(bias[part], state, weights[part].mT)  # (B, b)
        if beta is not None:
            noise = torch.rand(field.shape, generator=generator, dtype=field.dtype, device=field.device)
            threshold = (noise.log() - (-noise).log1p()) / (beta * (levels[1] - levels[0])) if beta else None
            _visit(field, state[:, part], weights[part, part], levels, noise - 0.5, threshold)
            continue
        before = state[:, part]
        wanting = (settle(field, before, levels) != before).any(1)  # (B,)
        if wanting.any():
            own = before[wanting]
            _visit(field[wanting], own, weights[part, part], levels)
            state[wanting, part] = own
            changed |= wanting
    return changed


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


def _visit(
    field: Tensor,
    state: Tensor,
    inside: Tensor,
    levels: tuple[float, float],
    coin: Tensor | None = None,
    threshold: Tensor | None = None,
) -> None:
    """The units of one block in turn, in place; field and state (B, b), inside (b, b).

    A unit is high with probability sigmoid(beta (high - low) h): where h exceeds logit(u) / (beta (high - low)).
    Units are rows while they are visited, and 0 or 1, so that to settle is one operation.
    """
    low, high = levels
    bits, drive = ((state - low) / (high - low)).mT.contiguous(), field.mT.contiguous()  # (b, B)
    for k, (bit, h, onward) in enumerate(zip(bits, drive, inside.mT.contiguous(), strict=True)):
        if coin is not None:
            h = -coin[:, k] if threshold is None else h - threshold[:, k]
        new = torch.heaviside(h, bit)
        if coin is None and torch.equal(new, bit):
            continue  # cheaper than to add nothing
        drive.addr_(onward, new - bit, alpha=high - low)
        bit.copy_(new)
    state.copy_(low + (high - low) * bits.mT)
