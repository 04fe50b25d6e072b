r"""A walk on a lattice: where diffusion comes from.

.. math:: P_{n+1}(j) = q\,P_n(j - 1) + p\,P_n(j + 1) + (1 - p - q)\,P_n(j)

With sites :math:`\delta` apart and steps :math:`\tau` long, its limit drifts at :math:`(q - p)\delta / \tau` and
spreads with :math:`D = \delta^2 (p + q) / 2\tau`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

BOUNDARIES = ("reflecting", "periodic")


@dataclass(frozen=True)
class LatticeWalk:
    """Step to the right with probability q, to the left with p, else stay.

    Raises: ValueError when the probabilities are negative or sum to more than 1.
    """

    right: float = 0.25
    left: float = 0.25

    def __post_init__(self):
        if min(self.right, self.left) < 0 or self.right + self.left > 1:
            raise ValueError(f"right and left must sum to at most 1; got {self.right} and {self.left}")

    def drift(self, spacing: float = 1.0, interval: float = 1.0) -> float:
        """Mean velocity, length a time."""
        return (self.right - self.left) * spacing / interval

    def diffusion(self, spacing: float = 1.0, interval: float = 1.0) -> float:
        """Diffusion constant D of the heat equation, length squared a time; right for small drift."""
        return (self.right + self.left) * spacing**2 / (2 * interval)

    def simulate(self, walkers: int, steps: int, generator: torch.Generator | None = None) -> Tensor:
        """Sites of independent walkers that start at 0, (steps + 1, walkers)."""
        drawn = torch.rand(steps, walkers, generator=generator, dtype=torch.float64)
        moves = (drawn < self.right).long() - (drawn >= 1 - self.left).long()
        return torch.cat([moves.new_zeros(1, walkers), moves.cumsum(0)])

    def evolve(self, mass: Tensor, steps: int, boundary: str = "reflecting") -> Tensor:
        """The master equation: probabilities of the sites after every step, (steps + 1, S).

        mass: (S,) at the start. boundary: at the ends a walker stays (`reflecting`) or goes round.
        """
        if boundary not in BOUNDARIES:
            raise ValueError(f"no boundary {boundary!r}; there are: {', '.join(BOUNDARIES)}")
        if mass.ndim != 1 or bool((mass < 0).any()):
            raise ValueError(f"mass must be a vector (S,) without negative entries; got {tuple(mass.shape)}")
        path = [mass]
        for _ in range(steps):
            now = path[-1]
            to_right, to_left = (self.right * now).roll(1), (self.left * now).roll(-1)
            if boundary == "reflecting":
                # What left over an end comes back to the site that it left.
                over_right, over_left = to_right[0].clone(), to_left[-1].clone()
                to_right[0], to_left[-1] = over_left, over_right
            path.append((1 - self.right - self.left) * now + to_right + to_left)
        return torch.stack(path)
