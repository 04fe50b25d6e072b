"""Basis functions of filters: a few smooth bumps over a window in seconds, whatever the bins are."""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from ppmodels.population._basis_fields import check_fields

Family = Literal["log-cosine", "cosine", "b-spline", "cyclic", "raw"]


class Basis(Protocol):
    """Functions of the time since the first lag; `functions` of them over `window` seconds."""

    @property
    def functions(self) -> int: ...

    @property
    def window(self) -> float: ...

    def evaluate(self, time: Tensor) -> Tensor:
        """Return every function, (..., K), at times (...) in seconds."""
        ...


@dataclass(frozen=True)
class RaisedCosine:
    r"""Raised cosines at equal distances: the first is at its peak at the first lag, the last ends with the window.

    .. math:: b_k(t) = \tfrac12 (1 + \cos \pi (t - k \Delta) / 2 \Delta) \text{ where } |t - k \Delta| < 2 \Delta,
        \quad \Delta = window / (K + 1)
    """

    functions: int = 5
    window: float = 0.1
    __post_init__ = check_fields

    def evaluate(self, time: Tensor) -> Tensor:
        return _bumps(time / self.window, self.functions)


@dataclass(frozen=True)
class RaisedCosineLog:
    r"""Raised cosines on a logarithmic axis: fine after the spike, coarse later.

    The axis is :math:`\log(t + window / warp)`: about linear up to window / warp, logarithmic beyond.

    Source: Pillow et al. (2008), Nature 454, 995-999, methods.
    """

    functions: int = 5
    window: float = 0.1
    warp: float = 20.0
    __post_init__ = check_fields

    def evaluate(self, time: Tensor) -> Tensor:
        share = (self.warp * time / self.window).clamp(min=0).log1p() / math.log1p(self.warp)
        return torch.where(time < 0, 0.0, 1.0)[..., None] * _bumps(share, self.functions)


@dataclass(frozen=True)
class BSpline:
    """Cubic B-splines, or of another order, on equal knots with clamped ends; they add up to one in the window."""

    functions: int = 6
    window: float = 0.1
    order: int = 4
    __post_init__ = check_fields

    def evaluate(self, time: Tensor) -> Tensor:
        inner = torch.linspace(0, 1, self.functions - self.order + 2, dtype=time.dtype, device=time.device)
        knots = torch.cat([inner[:1].repeat(self.order - 1), inner, inner[-1:].repeat(self.order - 1)])
        return _splines(time / self.window, knots, self.order)


@dataclass(frozen=True)
class Cyclic:
    """B-splines around a circle of circumference `window`: for a phase or a direction; they add up to one."""

    functions: int = 6
    window: float = 2 * math.pi
    order: int = 4
    __post_init__ = check_fields

    def evaluate(self, time: Tensor) -> Tensor:
        share = torch.remainder(time / self.window, 1.0)
        step = 1 / self.functions
        places = torch.arange(1 - self.order, self.functions + self.order, dtype=time.dtype, device=time.device)
        once = _splines(share, places * step, self.order, closed=False)  # (..., K + order - 1)
        wrapped = once[..., : self.functions].clone()
        extra = once.shape[-1] - self.functions
        wrapped[..., :extra] += once[..., self.functions :]
        return wrapped


@dataclass(frozen=True)
class Raw:
    """A function a bin: the filter itself, without smoothing."""

    functions: int = 5
    window: float = 0.1
    __post_init__ = check_fields

    def evaluate(self, time: Tensor) -> Tensor:
        bin_ = (time * (self.functions / self.window) + 1e-6).floor()  # a time on an edge belongs to the later bin
        return (bin_[..., None] == torch.arange(self.functions, device=time.device)).to(time.dtype)


def basis(family: Family, functions: int, window: float) -> Basis:
    """Return a basis by its family's name."""
    families = dict(zip(get_args(Family), (RaisedCosineLog, RaisedCosine, BSpline, Cyclic, Raw), strict=True))
    if family not in families:
        raise ValueError(f"no basis is called {family!r}; there are: {', '.join(families)}")
    return families[family](functions, window)


def num_bins(window: float, bin_size: float) -> int:
    """Return how many bins a window has; one that is no whole number of bins is rounded."""
    return round(window / bin_size) if window else 0


def sampled(basis: Basis, bin_size: float) -> Tensor:
    """Return the basis in bins, (W, K), float64: row w is w bins after the first lag.

    Raises: ValueError when the window has fewer bins than the basis has functions.
    """
    width = num_bins(basis.window, bin_size)
    if width < basis.functions:
        raise ValueError(
            f"a window of {basis.window:g} s has {width} bins of {bin_size:g} s, too few for "
            f"{basis.functions} basis functions; widen the window or take fewer"
        )
    return basis.evaluate(torch.arange(width, dtype=torch.float64) * bin_size)


def orthonormal(matrix: Tensor) -> Tensor:
    """Return orthonormal columns, (W, K), that span what the columns of (W, K) span, in their order.

    Weights on them have the filter's own norm, so that a prior does not depend on how bumps overlap, and spike
    counts filtered by them are nearly uncorrelated: every back end climbs faster.

    Raises: ValueError when the columns are linearly dependent.
    """
    q, r = torch.linalg.qr(matrix)
    size = r.diagonal().abs()
    if bool((size <= 1e-10 * size.max()).any()):
        raise ValueError(f"the {matrix.shape[1]} basis functions are linearly dependent on {len(matrix)} bins")
    return q * torch.where(r.diagonal() < 0, -1.0, 1.0)


def _bumps(share: Tensor, functions: int) -> Tensor:
    """Raised cosines over shares (...) of the window, (..., K)."""
    centers = torch.arange(functions, dtype=share.dtype, device=share.device)
    distance = (share[..., None] * (functions + 1) - centers).clamp(-2, 2)
    return (1 + (math.pi / 2 * distance).cos()) / 2


def _splines(share: Tensor, knots: Tensor, order: int, closed: bool = True) -> Tensor:
    """All B-splines of this order on the knots at shares (...), by the recursion of de Boor, (..., K)."""
    x = share[..., None]
    value = ((x >= knots[:-1]) & (x < knots[1:])).to(share.dtype)
    if closed:  # the window's end belongs to the last interval that is not empty
        last = int((knots < knots[-1]).sum()) - 1
        value[..., last] += (share == knots[-1]).to(share.dtype)
    for k in range(2, order + 1):
        left, right = knots[k - 1 : -1] - knots[:-k], knots[k:] - knots[1 : -k + 1]
        rise = torch.where(left > 0, (x - knots[:-k]) / torch.where(left > 0, left, 1.0), 0.0)
        fall = torch.where(right > 0, (knots[k:] - x) / torch.where(right > 0, right, 1.0), 0.0)
        value = rise * value[..., :-1] + fall * value[..., 1:]
    return value
