"""The three windows of a population model, sampled on its bins."""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ppmodels.population.basis import Family, basis, num_bins, orthonormal, sampled

Window = tuple[int, float]  # basis functions, and seconds; (0, 0.0) for none


@dataclass(frozen=True)
class Windows:
    """Orthonormal bases in bins, times the root of their length: mean square one.

    stimulus: (B, A), whose first row is lag 0; an instantaneous weight is (1, 1).
    history, coupling: (L, H), (L, K), whose first row is lag 1; a shorter window is filled with zeros.
    """

    stimulus: Tensor
    history: Tensor
    coupling: Tensor

    @property
    def past(self) -> int:
        """Bins of spikes that a bin depends on, L."""
        return len(self.history)

    @property
    def lead(self) -> int:
        """Bins of stimulus before a bin that it depends on, B - 1."""
        return len(self.stimulus) - 1

    @property
    def shared(self) -> bool:
        """Are history and coupling weighed on the same functions?"""
        return self.history.shape == self.coupling.shape and torch.equal(self.history, self.coupling)


def windows(
    family: Family, bin_size: float, stimulus: Window, history: Window, coupling: Window, like: Tensor
) -> Windows:
    """Return the bases in the dtype and on the device of `like`."""
    return Windows(*(m.to(like) for m in _matrices(family, bin_size, stimulus, history, coupling)))


def check_window(name: str, window: Window, family: Family, bin_size: float) -> None:
    """Refuse, naming the window, what cannot be one."""
    functions, seconds = window
    if functions < 0 or bool(functions) != bool(seconds) or not 0 <= seconds < math.inf:
        raise ValueError(f"{name} is (basis functions, seconds), or (0, 0.0) for none; it is {window}")
    try:
        _matrix(family, window, bin_size)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


@lru_cache(maxsize=64)  # made once, and so not again in every evaluation of a density
def _matrices(
    family: Family, bin_size: float, stimulus: Window, history: Window, coupling: Window
) -> tuple[Tensor, ...]:
    own, other = _matrix(family, history, bin_size), _matrix(family, coupling, bin_size)
    length = max(len(own), len(other))
    padded = [torch.cat([m, m.new_zeros(length - len(m), m.shape[1])]) for m in (own, other)]
    direct = _matrix(family, stimulus, bin_size) if stimulus[0] else torch.ones(1, 1, dtype=torch.float64)
    return direct, *padded


def _matrix(family: Family, window: Window, bin_size: float) -> Tensor:
    functions, seconds = window
    if not functions:
        return torch.zeros(0, 0, dtype=torch.float64)
    if family == "raw" and functions != num_bins(seconds, bin_size):
        raise ValueError(f"a raw window has a function a bin, so {num_bins(seconds, bin_size)}, not {functions}")
    matrix = sampled(basis(family, functions, seconds), bin_size)
    return orthonormal(matrix) * math.sqrt(len(matrix))
