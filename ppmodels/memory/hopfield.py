"""Hopfield network: binary units whose symmetric couplings make the stored patterns minima of an energy."""

from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ppmodels.memory._sweep import settle, sweep, synchronous_sweep

Units = Literal["signs", "bits"]
LEVELS: dict[str, tuple[float, float]] = {"signs": (-1.0, 1.0), "bits": (0.0, 1.0)}


class Recall(NamedTuple):
    """Where a recall ended.

    state: (..., N). period: 1 at a fixed point, 2 on a cycle of two, 0 when it still moved, (...).
    sweeps: how many were done.
    """

    state: Tensor
    period: Tensor
    sweeps: int


@dataclass(frozen=True)
class Hopfield:
    r"""N units, each of which follows the sign of its field :math:`h = W s + b`.

    .. math:: E(s) = -\tfrac12 s^\top W s - b^\top s

    weights: W (N, N), entry (i, j) from unit j to i. bias: b (N,), minus the thresholds.
    units: `signs` are -1 and 1, `bits` are 0 and 1. A unit whose field is exactly 0 keeps its state.
    With symmetric weights and a diagonal >= 0, one unit at a time never raises E and so comes to rest; all
    units at once come to rest or to a cycle of two. Neither holds for weights that are not symmetric.

    Raises: ValueError when the shapes do not fit, or for a weight that is not finite.
    Source: Hopfield (1982), PNAS 79; Goles and Olivos (1981) for cycles of two.
    """

    weights: Tensor
    bias: Tensor = None  # type: ignore[assignment]  # zero
    units: Units = "signs"

    def __post_init__(self) -> None:
        """Check shapes, and fill in a bias of zero."""
        if self.weights.ndim != 2 or self.weights.shape[0] != self.weights.shape[1]:
            raise ValueError(f"weights must be square; they are {tuple(self.weights.shape)}")
        if self.bias is None:
            object.__setattr__(self, "bias", self.weights.new_zeros(len(self.weights)))
        if self.bias.shape != self.weights.shape[:1]:
            raise ValueError(f"bias must be ({len(self.weights)},); it is {tuple(self.bias.shape)}")
        if not (self.weights.isfinite().all() and self.bias.isfinite().all()):
            raise ValueError("weights and bias must be finite")
        if self.units not in LEVELS:
            raise ValueError(f"units must be signs or bits; they are {self.units!r}")

    def field(self, state: Tensor) -> Tensor:
        """Return h, (..., N), of states (..., N)."""
        return self._checked(state) @ self.weights.mT + self.bias

    def energy(self, state: Tensor) -> Tensor:
        """Return E, (...), of states (..., N)."""
        state = self._checked(state)
        return -((state @ self.weights.mT / 2 + self.bias) * state).sum(-1)

    def is_fixed(self, state: Tensor) -> Tensor:
        """Return whether no unit would change, (...)."""
        return (settle(self.field(state), state, LEVELS[self.units]) == state).all(-1)

    def recall(
        self,
        cue: Tensor,
        update: Literal["asynchronous", "synchronous"] = "asynchronous",
        sweeps: int = 200,
        seed: int | None = None,
    ) -> Recall:
        """Return where the cues (..., N) go.

        update: one unit at a time, or all at once, a sweep then being one matrix product.
        seed: visit the units in a random order; without one, from the first to the last.
        """
        if update not in ("asynchronous", "synchronous"):
            raise ValueError(f"update must be asynchronous or synchronous; it is {update!r}")
        state = self._checked(cue).reshape(-1, len(self.weights))
        if update == "synchronous":
            state, period, done = synchronous_sweep(self.weights, self.bias, state, LEVELS[self.units], sweeps)
        else:
            visit = self._one_by_one if seed is None else partial(self._shuffled, seed=seed)
            state, period, done = visit(state, sweeps)
        return Recall(state.reshape(cue.shape), period.reshape(cue.shape[:-1]), done)

    def sample(self, state: Tensor, beta: float, sweeps: int, generator: torch.Generator) -> Tensor:
        """Return states (..., N) after so many sweeps of Gibbs sampling from exp(-beta E)."""
        if not beta >= 0:
            raise ValueError(f"beta must not be negative; it is {beta}")
        shape, state = state.shape, self._checked(state).reshape(-1, len(self.weights)).clone()
        for _ in range(sweeps):
            sweep(self.weights, self.bias, state, LEVELS[self.units], beta, generator)
        return state.reshape(shape)

    def as_bits(self) -> "Hopfield":
        """Return the same network with units (s + 1) / 2: its field is twice, its energy up to a constant the same."""
        if self.units == "bits":
            return self
        return Hopfield(4 * self.weights, 2 * self.bias - 2 * self.weights.sum(-1), "bits")

    def as_signs(self) -> "Hopfield":
        """Return the same network with units 2 v - 1."""
        if self.units == "signs":
            return self
        return Hopfield(self.weights / 4, self.bias / 2 + self.weights.sum(-1) / 4, "signs")

    def _one_by_one(self, state: Tensor, sweeps: int) -> tuple[Tensor, Tensor, int]:
        state, moved, done = state.clone(), torch.ones(len(state), dtype=torch.bool), 0
        while done < sweeps and moved.any():
            going, done = state[moved], done + 1
            changed = sweep(self.weights, self.bias, going, LEVELS[self.units])
            state[moved] = going
            moved[moved.clone()] = changed
        return state, (~moved).long(), done

    def _shuffled(self, state: Tensor, sweeps: int, seed: int) -> tuple[Tensor, Tensor, int]:
        """The same on the units in a random order, in which blocks of the sweep are slices."""
        order = torch.randperm(len(self.weights), generator=torch.Generator().manual_seed(seed))
        network = Hopfield(self.weights[order][:, order], self.bias[order], self.units)
        state, period, done = network._one_by_one(state[:, order], sweeps)
        return state[:, order.argsort()], period, done

    def _checked(self, state: Tensor) -> Tensor:
        if state.shape[-1:] != self.weights.shape[:1]:
            raise ValueError(f"a state needs {len(self.weights)} units; it has shape {tuple(state.shape)}")
        return state.to(self.weights)
