"""Gaussians around a mode: each draws, and knows its determinant and the marginal variances."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Gaussian(Protocol):
    """N(0, precision^-1) over the flat vector, (dim,)."""

    def half_log_det(self) -> float:
        """Return half the log determinant of the precision."""
        ...

    def draw(self, z: Tensor) -> Tensor:
        """Return draws, (S, dim), from standard normal numbers, (S, dim)."""
        ...

    def variance(self) -> Tensor:
        """Return the marginal variances, (dim,); zero where a coordinate is fixed."""
        ...

    @property
    def free(self) -> int:
        """Number of coordinates that are not fixed."""
        ...


@dataclass(frozen=True)
class Dense:
    """Some coordinates with a full precision, the others fixed. factor: its lower Cholesky factor, (Q, Q)."""

    factor: Tensor
    places: Tensor
    dim: int

    @property
    def free(self) -> int:
        return len(self.factor)

    def half_log_det(self) -> float:
        return float(self.factor.diagonal().log().sum())

    def draw(self, z: Tensor) -> Tensor:
        found = torch.zeros_like(z)
        some = torch.linalg.solve_triangular(self.factor.mT, z[:, self.places].mT, upper=True).mT
        found[:, self.places] = some
        return found

    def variance(self) -> Tensor:
        found = self.factor.new_zeros(self.dim)
        found[self.places] = torch.cholesky_inverse(self.factor).diagonal()
        return found


@dataclass(frozen=True)
class Diagonal:
    """Independent coordinates with these precisions, (dim,)."""

    precision: Tensor

    @property
    def free(self) -> int:
        return len(self.precision)

    def half_log_det(self) -> float:
        return 0.5 * float(self.precision.log().sum())

    def draw(self, z: Tensor) -> Tensor:
        return z * self.precision.rsqrt()

    def variance(self) -> Tensor:
        return 1 / self.precision


@dataclass(frozen=True)
class Layer:
    """One layer's weights W (O, I), bias as a last column, with precision in coordinates W = U root:

        precision = G (x) A + 1,   A = root (sum_n a a') root,   G = mean_n g g'

    places (O, I): where the weights stand in the flat vector. root (I,): prior sd of a column.
    """

    places: Tensor
    root: Tensor
    a: tuple[Tensor, Tensor]  # eigenvalues (I,), eigenvectors (I, I)
    g: tuple[Tensor, Tensor]  # eigenvalues (O,), eigenvectors (O, O)

    @property
    def spectrum(self) -> Tensor:
        """Eigenvalues of the precision in those coordinates, (O, I)."""
        return self.g[0].clamp(min=0.0)[:, None] * self.a[0].clamp(min=0.0) + 1.0

    def half_log_det(self) -> float:
        return 0.5 * float(self.spectrum.log().sum()) - len(self.places) * float(self.root.log().sum())

    def draw(self, z: Tensor) -> Tensor:
        """Return draws of W, (S, O, I)."""
        turned = z[:, self.places] * self.spectrum.rsqrt()
        return (self.g[1] @ turned @ self.a[1].mT) * self.root

    def variance(self) -> Tensor:
        """Return the marginal variances of W, (O, I)."""
        return self.g[1].square() @ (1 / self.spectrum) @ self.a[1].square().mT * self.root.square()


@dataclass(frozen=True)
class Kronecker:
    """Independent layers, and what is in no layer with a dense precision."""

    layers: tuple[Layer, ...]
    rest: Dense | None

    @property
    def free(self) -> int:
        return sum(layer.places.numel() for layer in self.layers) + (self.rest.free if self.rest else 0)

    def half_log_det(self) -> float:
        return math.fsum(part.half_log_det() for part in (*self.layers, *([self.rest] if self.rest else [])))

    def draw(self, z: Tensor) -> Tensor:
        found = self.rest.draw(z) if self.rest else torch.zeros_like(z)
        for layer in self.layers:
            found[:, layer.places] = layer.draw(z)
        return found

    def variance(self) -> Tensor:
        places = [layer.places.flatten() for layer in self.layers]
        found = self.layers[0].root.new_zeros(sum(map(len, places)) + (self.rest.free if self.rest else 0))
        if self.rest:
            found = self.rest.variance()
        for layer in self.layers:
            found[layer.places] = layer.variance()
        return found
