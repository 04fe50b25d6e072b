"""Kernel functions: similarity of two points as an inner product of features that are never written down.

Each is called with points x (N, D) and y (M, D), or x alone, and returns the Gram matrix (N, M).
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Lengthscale = float | tuple[float, ...]


class Kernel(Protocol):
    """A symmetric function of two points."""

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return k(x_n, y_m), (N, M)."""
        ...

    def diagonal(self, x: Tensor) -> Tensor:
        """Return k(x_n, x_n), (N,)."""
        ...


@dataclass(frozen=True)
class Linear:
    """x'y: the features are the coordinates."""

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        x, y = _points(x, y)
        return x @ y.mT

    def diagonal(self, x: Tensor) -> Tensor:
        return x.square().sum(-1)


@dataclass(frozen=True)
class Polynomial:
    """(scale x'y + offset)^degree: the features are all products of up to `degree` coordinates."""

    degree: int = 2
    offset: float = 1.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.degree < 1 or self.degree != int(self.degree):
            raise ValueError(f"degree must be a whole number from 1; it is {self.degree}")
        _positive("scale", self.scale)
        if self.offset < 0:
            raise ValueError(f"offset must not be negative; it is {self.offset}")

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        x, y = _points(x, y)
        return (self.scale * x @ y.mT + self.offset) ** self.degree

    def diagonal(self, x: Tensor) -> Tensor:
        return (self.scale * x.square().sum(-1) + self.offset) ** self.degree


@dataclass(frozen=True)
class RBF:
    r""":math:`\exp(-|x - y|^2 / 2 \ell^2)`; a lengthscale a column, or one for all."""

    lengthscale: Lengthscale = 1.0

    def __post_init__(self) -> None:
        """Check the field."""
        _positive("lengthscale", self.lengthscale)

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return _squared(x, y, self.lengthscale).mul_(-0.5).exp_()

    def diagonal(self, x: Tensor) -> Tensor:
        return torch.ones_like(x[:, 0])


@dataclass(frozen=True)
class Laplace:
    r""":math:`\exp(-|x - y|_1 / \ell)`, with the sum of absolute differences."""

    lengthscale: Lengthscale = 1.0

    def __post_init__(self) -> None:
        """Check the field."""
        _positive("lengthscale", self.lengthscale)

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return (-torch.cdist(*_scaled(x, y, self.lengthscale), p=1.0)).exp()

    def diagonal(self, x: Tensor) -> Tensor:
        return torch.ones_like(x[:, 0])


@dataclass(frozen=True)
class Matern:
    """The kernel of functions that are differentiable nu - 1/2 times: nu is 1/2, 3/2 or 5/2."""

    nu: float = 1.5
    lengthscale: Lengthscale = 1.0

    def __post_init__(self) -> None:
        """Check the fields."""
        _positive("lengthscale", self.lengthscale)
        if self.nu not in (0.5, 1.5, 2.5):
            raise ValueError(f"nu must be 0.5, 1.5 or 2.5; it is {self.nu}")

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        r = _squared(x, y, self.lengthscale).sqrt() * math.sqrt(2 * self.nu)
        polynomial = {0.5: 1.0, 1.5: 1 + r, 2.5: 1 + r + r.square() / 3}[self.nu]
        return polynomial * (-r).exp()

    def diagonal(self, x: Tensor) -> Tensor:
        return torch.ones_like(x[:, 0])


@dataclass(frozen=True)
class Sigmoid:
    """tanh(scale x'y + offset): of historical interest, and in general no inner product at all."""

    scale: float = 1.0
    offset: float = 0.0

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        x, y = _points(x, y)
        return (self.scale * x @ y.mT + self.offset).tanh()

    def diagonal(self, x: Tensor) -> Tensor:
        return (self.scale * x.square().sum(-1) + self.offset).tanh()


@dataclass(frozen=True)
class Cosine:
    """x'y / |x| |y|; 0 where one of them is 0."""

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        x, y = _points(x, y)
        return torch.nn.functional.normalize(x, dim=-1) @ torch.nn.functional.normalize(y, dim=-1).mT

    def diagonal(self, x: Tensor) -> Tensor:
        return (x.square().sum(-1) > 0).to(x)


@dataclass(frozen=True)
class Precomputed:
    """A Gram matrix known beforehand, (N, N); points are then row numbers, (n, 1)."""

    gram: Tensor

    def __post_init__(self) -> None:
        """Check the matrix."""
        if self.gram.ndim != 2 or len(self.gram) != self.gram.shape[1]:
            raise ValueError(f"a Gram matrix must be square; it is {tuple(self.gram.shape)}")
        if not torch.allclose(self.gram, self.gram.mT):
            raise ValueError("a Gram matrix must be symmetric")

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        x, y = _points(x, y)
        return self.gram[x[:, 0].long()][:, y[:, 0].long()]

    def diagonal(self, x: Tensor) -> Tensor:
        return self.gram.diagonal()[x[:, 0].long()]


def squared_distance(x: Tensor, y: Tensor) -> Tensor:
    """Return |x_n - y_m|^2, (..., N, M), by one matrix product; rounding may leave 1e-16 where it is 0."""
    return _differences(x, y).clamp(min=0)


def check_points(x: Tensor, name: str = "x") -> Tensor:
    """Return x as floats.

    Raises: ValueError when it is not (N, D), is empty, or holds a value that is not finite.
    """
    x = torch.as_tensor(x)
    x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"{name} must be (N, D), at least one of each; it is {tuple(x.shape)}")
    if not x.isfinite().all():
        row, column = (~x.isfinite()).nonzero()[0].tolist()
        raise ValueError(f"{name} is {x[row, column].item()} in row {row}, column {column}")
    return x


def _points(x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
    if y is not None and y.shape[-1] != x.shape[-1]:
        raise ValueError(f"points of {x.shape[-1]} and of {y.shape[-1]} columns cannot be compared")
    return x, x if y is None else y


def _scaled(x: Tensor, y: Tensor | None, lengthscale: Lengthscale) -> tuple[Tensor, Tensor]:
    x, y = _points(x, y)
    if isinstance(lengthscale, tuple) and len(lengthscale) != x.shape[-1]:
        raise ValueError(f"{len(lengthscale)} lengthscales were given for {x.shape[-1]} columns")
    width = torch.as_tensor(lengthscale, dtype=x.dtype, device=x.device)
    scaled = x / width
    return scaled, scaled if y is x else y / width


def _squared(x: Tensor, y: Tensor | None, lengthscale: Lengthscale) -> Tensor:
    """Scaled squared distances, exactly 0 from a point to itself."""
    squared = _differences(*_scaled(x, y, lengthscale)).clamp_(min=0)
    return squared.fill_diagonal_(0) if y is None else squared


def _differences(x: Tensor, y: Tensor) -> Tensor:
    """|x|^2 + |y|^2 - 2 x'y, (..., N, M), where rounding may leave less than 0; written to memory once."""
    origin = x.mean(-2, keepdim=True)  # far from zero, squares would cancel
    a, b = x - origin, y - origin
    left = torch.cat([-2 * a, a.square().sum(-1, keepdim=True), torch.ones_like(a[..., :1])], -1)
    right = torch.cat([b, torch.ones_like(b[..., :1]), b.square().sum(-1, keepdim=True)], -1)
    return left @ right.mT


def _positive(name: str, value: Lengthscale) -> None:
    if not all(0 < v < math.inf for v in (value if isinstance(value, tuple) else (value,))):
        raise ValueError(f"{name} must be positive and finite; it is {value}")
