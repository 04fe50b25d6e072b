"""Explicit features whose inner products are, or come close to, a kernel."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ppmodels.kernels.functions import RBF, Kernel, Laplace, Matern, check_points


def quadratic_features(x: Tensor, offset: float = 1.0) -> Tensor:
    """Return the features of (x'y + offset)^2, (N, (D + 1)(D + 2) / 2)."""
    i, j = torch.triu_indices(x.shape[1], x.shape[1], 1)
    parts = [x.square(), math.sqrt(2) * x[:, i] * x[:, j], math.sqrt(2 * offset) * x]
    return torch.cat([*parts, torch.full_like(x[:, :1], offset)], -1)


@dataclass(frozen=True)
class RandomFeatures:
    r"""Fourier features :math:`\sqrt{2 / P} \cos(\omega^\top x + b)`: their error falls as 1 / sqrt(P).

    frequency: omega (D, P). phase: b (P,). Source: Rahimi and Recht (2007), NIPS.
    """

    frequency: Tensor
    phase: Tensor

    @classmethod
    def draw(cls, kernel: RBF | Laplace | Matern, dim: int, number: int, seed: int = 0) -> "RandomFeatures":
        """Draw frequencies from the kernel's spectrum: normal, Cauchy, or Student's t with 2 nu degrees."""
        generator = torch.Generator().manual_seed(seed)
        normal = torch.randn(dim, number, generator=generator, dtype=torch.float64)
        if isinstance(kernel, Laplace):
            uniform = torch.rand(dim, number, generator=generator, dtype=torch.float64)
            normal = (math.pi * (uniform - 0.5)).tan()
        elif isinstance(kernel, Matern):
            chi = torch.randn(round(2 * kernel.nu), number, generator=generator, dtype=torch.float64)
            normal = normal / (chi.square().sum(0) / (2 * kernel.nu)).sqrt()
        elif not isinstance(kernel, RBF):
            raise ValueError(f"random features are known for RBF, Laplace and Matern, not {type(kernel).__name__}")
        width = torch.as_tensor(kernel.lengthscale, dtype=torch.float64).reshape(-1, 1)
        phase = 2 * math.pi * torch.rand(number, generator=generator, dtype=torch.float64)
        return cls(normal / width, phase)

    def __call__(self, x: Tensor) -> Tensor:
        """Return features of x (N, D), (N, P)."""
        projected = x @ self.frequency.to(x) + self.phase.to(x)
        return projected.cos_().mul_(math.sqrt(2 / len(self.phase)))


@dataclass(frozen=True)
class NystromFeatures:
    r"""Features :math:`K_{mm}^{-1/2} k_m(x)`: exact on the landmarks, and everywhere when all rows are landmarks.

    landmarks (M, D). root: K_mm^-1/2 on the directions that are not null, (M, R). Source: Williams and Seeger (2001).
    """

    kernel: Kernel
    landmarks: Tensor
    root: Tensor

    @classmethod
    def fit(cls, landmarks: Tensor, kernel: Kernel) -> "NystromFeatures":
        """Return the features of these landmarks (M, D); duplicates do no harm."""
        landmarks = check_points(landmarks, "landmarks")
        values, vectors = torch.linalg.eigh(kernel(landmarks))
        kept = values > len(values) * torch.finfo(values.dtype).eps * values[-1]
        return cls(kernel, landmarks, vectors[:, kept] * values[kept].rsqrt())

    def __call__(self, x: Tensor) -> Tensor:
        """Return features of x (N, D), (N, R)."""
        return self.kernel(x, self.landmarks) @ self.root
