"""Dense associative memory: Hopfield's energy with steeper wells."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ppmodels.memory.hopfield import Recall


@dataclass(frozen=True)
class Interaction:
    """F, applied to the overlap of a state with a memory: x^n, max(x, 0)^n, or exp(x)."""

    kind: Literal["polynomial", "rectified", "exponential"] = "polynomial"
    degree: int = 2

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.kind not in ("polynomial", "rectified", "exponential"):
            raise ValueError(f"kind must be polynomial, rectified or exponential; it is {self.kind!r}")
        if self.degree < 1:
            raise ValueError(f"degree must be at least 1; it is {self.degree}")

    def total(self, overlap: Tensor) -> Tensor:
        """Return the sum of F over memories, (..., K) -> (...); for exp its logarithm, which does not overflow."""
        if self.kind == "exponential":
            return overlap.logsumexp(-1)
        return (overlap.relu() if self.kind == "rectified" else overlap).pow(self.degree).sum(-1)

    def slope(self, overlap: Tensor) -> Tensor:
        """Return F', the activation of the hidden units in the feed-forward view; for exp up to a factor a row."""
        if self.kind == "exponential":
            return overlap.softmax(-1)
        positive = overlap.relu() if self.kind == "rectified" else overlap
        kept = overlap > 0 if self.kind == "rectified" else torch.ones_like(overlap)
        return self.degree * positive.pow(self.degree - 1) * kept


@dataclass(frozen=True)
class DenseMemory:
    r"""Memories :math:`x_\mu` and the energy :math:`E(s) = -\sum_\mu F(x_\mu^\top s)` of states of -1 and 1.

    With F = x^2 this is the Hopfield network with Hebb's weights. A steeper F gives room for N^(n-1) memories.

    patterns: x (K, N). Source: Krotov and Hopfield (2016), arXiv:1606.01164; Demircigil et al. (2017), for exp.
    """

    patterns: Tensor
    interaction: Interaction = Interaction()

    def __post_init__(self) -> None:
        """Check the patterns."""
        if self.patterns.ndim != 2 or 0 in self.patterns.shape:
            raise ValueError(f"patterns must be (K, N), at least one of each; they are {tuple(self.patterns.shape)}")

    def energy(self, state: Tensor) -> Tensor:
        """Return E, (...), of states (..., N); for exp minus its logarithm, in the same order."""
        return -self.interaction.total(state.to(self.patterns) @ self.patterns.mT)

    def drive(self, state: Tensor, unit: int, overlap: Tensor | None = None) -> Tensor:
        """Return E(unit at -1) - E(unit at 1), the others as in state, (B, N) -> (B,); its sign is the update."""
        memory = self.patterns[:, unit]
        overlap = state @ self.patterns.mT if overlap is None else overlap
        rest = overlap - state[:, unit, None] * memory  # (B, K)
        return self.interaction.total(rest + memory) - self.interaction.total(rest - memory)

    def update_once(self, state: Tensor) -> Tensor:
        """Return states (B, N) in which every unit has followed its drive, all at once."""
        overlap = state @ self.patterns.mT  # (B, K)
        drives = [self.drive(state, i, overlap) for i in range(state.shape[1])]
        return _follow(torch.stack(drives, -1), state)

    def recall(self, cue: Tensor, sweeps: int = 100) -> Recall:
        """Return where cues (B, N) go, one unit at a time: E never rises."""
        state = cue.to(self.patterns).clone()
        overlap = state @ self.patterns.mT  # (B, K)
        moved = torch.ones(len(state), dtype=torch.bool)
        done = 0
        while done < sweeps and moved.any():
            before, done = state.clone(), done + 1
            for unit in range(state.shape[1]):
                new = _follow(self.drive(state, unit, overlap), state[:, unit])
                overlap += (new - state[:, unit])[:, None] * self.patterns[:, unit]
                state[:, unit] = new
            moved = (state != before).any(1)
        return Recall(state, (~moved).long(), done)

    def classify(self, visible: Tensor) -> Tensor:
        """Clamp the first D units at visible (B, D), start the C others at -1; return their drives, (B, C)."""
        classes = self.patterns.shape[1] - visible.shape[1]
        if classes < 1:
            raise ValueError(f"{visible.shape[1]} clamped units leave none of {self.patterns.shape[1]} to be a class")
        clamped = torch.cat([visible, visible.new_full((len(visible), classes), -1.0)], -1)
        overlap = clamped @ self.patterns.mT
        units = range(visible.shape[1], self.patterns.shape[1])
        return torch.stack([self.drive(clamped, unit, overlap) for unit in units], -1)

    def feed_forward(self, visible: Tensor) -> Tensor:
        r"""Return :math:`\sum_\mu x_{\mu c} F'(\sum_{i \le D} x_{\mu i} v_i)`, (B, C).

        The network with one hidden layer; half of `classify` to first order in the class units.
        """
        hidden = self.interaction.slope(visible @ self.patterns[:, : visible.shape[1]].mT)  # (B, K)
        return hidden @ self.patterns[:, visible.shape[1] :]


def _follow(drive: Tensor, state: Tensor) -> Tensor:
    return torch.where(drive > 0, 1.0, torch.where(drive < 0, -1.0, state))
