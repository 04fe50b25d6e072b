"""HiPPO: state matrices that make a linear state the best summary of its input's past."""

import torch
from torch import Tensor


def legs(states: int) -> tuple[Tensor, Tensor]:
    r"""Scaled Legendre measure: the whole past, stretched to one interval.

    .. math:: \dot c = (A c + B f) / t,\quad A_{nk} = -\sqrt{(2n+1)(2k+1)}\ (n > k),\ -(n+1)\ (n = k)

    Returns: A (N, N), stable: its eigenvalues are -1 ... -N; B (N,) = sqrt(2n + 1).
    Source: Gu, Dao, Ermon, Rudra and Ré (2020), arXiv:2008.07669, theorem 2, with A's sign as in S4.
    """
    root = _root(states)
    below = torch.tril(torch.outer(root, root), diagonal=-1)
    return -below - torch.diag(torch.arange(1.0, states + 1, dtype=root.dtype)), root


def legt(states: int) -> tuple[Tensor, Tensor]:
    r"""Translated Legendre measure: a window of length one that slides along.

    .. math:: \dot c = A c + B f,\quad A_{nk} = -\sqrt{(2n+1)(2k+1)}\,\{1\ (k \le n),\ (-1)^{n-k}\ (k > n)\}

    Exact while the past is a polynomial of degree below N. Dividing A and B by s makes the window s long.

    Returns: A (N, N), B (N,).
    Source: Gu, Dao, Ermon, Rudra and Ré (2020), arXiv:2008.07669, theorem 1.
    """
    root = _root(states)
    order = torch.arange(states)
    distance = order[:, None] - order  # (N, N)
    sign = torch.where((distance < 0) & (distance % 2 == 1), -1.0, 1.0)
    return -torch.outer(root, root) * sign, root


def fout(states: int) -> tuple[Tensor, Tensor]:
    r"""Truncated Fourier measure: a window of length one, on cosines and sines of its age s.

    .. math:: \dot c = (D - 2 b b^T) c + 2 b f,\ \phi = (1, 0, \sqrt2\cos 2\pi s, \sqrt2\sin 2\pi s, \ldots)

    D differentiates the basis and b is the basis at s = 0. Exact while the past has the window's period.

    Returns: A (N, N), B (N,). The second state is always zero, so that the states come in pairs.
    Raises: ValueError when N is odd.
    Source: Gu, Johnson, Timalsina, Rudra and Ré (2022), arXiv:2206.12037, section 4.
    """
    if states % 2:
        raise ValueError(f"fout needs an even number of states; got {states}")
    frequency = torch.zeros(states - 1, dtype=torch.float64)
    frequency[::2] = 2 * torch.pi * torch.arange(states // 2, dtype=torch.float64)
    derivative = torch.diag(frequency, -1) - torch.diag(frequency, 1)  # (N, N)
    start = _fourier_start(states)
    return derivative - 2 * torch.outer(start, start), 2 * start


MEASURES = {"legs": legs, "legt": legt, "fout": fout}


def transition(measure: str, states: int) -> tuple[Tensor, Tensor]:
    """A (N, N) and B (N,) of a measure by name: legs, legt or fout.

    Raises: ValueError when there is no such measure or no state.
    """
    if measure not in MEASURES:
        raise ValueError(f"no measure {measure!r}; there are: {', '.join(MEASURES)}")
    if states < 1:
        raise ValueError(f"states must be at least 1; got {states}")
    return MEASURES[measure](states)


def low_rank(measure: str, states: int) -> Tensor:
    """P (R, N) such that A + P^T P is normal: a multiple of the identity plus a skew-symmetric matrix."""
    n = torch.arange(states, dtype=torch.float64)
    if measure == "legs":
        return (n + 0.5).sqrt()[None]
    if measure == "legt":
        root = _root(states)
        return torch.stack([root * (n % 2 == 0), root * (n % 2 == 1)])
    if measure == "fout":
        return 2**0.5 * _fourier_start(states)[None]
    raise ValueError(f"no measure {measure!r}; there are: {', '.join(MEASURES)}")


def _root(states: int) -> Tensor:
    return (2 * torch.arange(states, dtype=torch.float64) + 1).sqrt()


def _fourier_start(states: int) -> Tensor:
    start = torch.zeros(states, dtype=torch.float64)
    start[::2] = 2**0.5
    start[0] = 1.0
    return start
