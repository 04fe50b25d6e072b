"""Kernel regression for many rows: a few landmarks, rows in blocks, and conjugate gradients well preconditioned."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ppmodels.kernels.functions import Kernel, check_points

BLOCK = 4096  # rows of a block
SAMPLE = 4  # rows a landmark from which the preconditioner is made: one gives four times the iterations
KEPT = 2**30  # bytes of kernel blocks that are kept rather than made again in every iteration


@dataclass(frozen=True)
class LandmarkRidge:
    r"""A fitted regression :math:`f(x) = \sum_m \beta_m k(x, z_m)` on M landmarks z.

    .. math:: \beta = \arg\min |y - K_{nm} \beta|^2 + \lambda\, \beta^\top K_{mm} \beta

    With all rows as landmarks it is kernel ridge regression. landmarks (M, D); beta (M,) or (M, P).
    residuals: of the preconditioned system, relative, after each iteration.
    """

    kernel: Kernel
    landmarks: Tensor
    beta: Tensor
    residuals: tuple[float, ...] = ()

    @classmethod
    def fit(
        cls,
        x: Tensor,
        y: Tensor,
        kernel: Kernel,
        penalty: float,
        landmarks: int = 1000,
        iterations: int = 100,
        tol: float = 1e-3,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> "LandmarkRidge":
        """Fit y (N,) or (N, P) on x (N, D), landmarks drawn from the rows without repetition.

        iterations, tol: until the residual has fallen by tol; the smaller the penalty, the more it takes.
        dtype: of the kernel blocks; what is M by M, and every sum over blocks, is float64. float32 halves time and
            memory, and leaves an error of about 1e-3 of y.

        Raises: ValueError for input that does not fit, or a penalty that is not positive.
        Source: Rudi, Carratino and Rosasco (2017), Falkon, arXiv:1705.10958.
        """
        x = check_points(x)
        if len(y) != len(x):
            raise ValueError(f"y must have {len(x)} rows, as x has; it has {len(y)}")
        if not penalty > 0 or not 1 <= landmarks <= len(x):
            raise ValueError(f"penalty must be positive and landmarks 1 to {len(x)}; got {penalty} and {landmarks}")
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
        z, sample = x[order[:landmarks]], x[order[-SAMPLE * landmarks :]].to(dtype)
        columns = torch.as_tensor(y).double().reshape(len(x), -1)
        blocks = _Blocks(kernel, x.to(dtype), z.to(dtype))
        jitter = max(10 * torch.finfo(dtype).eps, 1e-12)
        seen = _Blocks(kernel, sample, blocks.z, kept=0)
        precondition = _Preconditioner(kernel(z.double()), seen, penalty, len(x), jitter)
        right = precondition.transposed(blocks.transposed(columns))
        solution, residuals = conjugate_gradients(
            lambda u: (
                precondition.transposed(blocks.normal(precondition(u)))
                + penalty * precondition.transposed(precondition.gram @ precondition(u))
            ),
            right,
            iterations,
            tol,
        )
        beta = precondition(solution).reshape(landmarks, *torch.as_tensor(y).shape[1:])
        return cls(kernel, z, beta, residuals)

    def predict(self, x: Tensor) -> Tensor:
        """Return f at x (n, D), (n,) or (n, P), block by block in the landmarks' dtype."""
        z, beta = self.landmarks, self.beta.to(self.landmarks)
        return torch.cat([self.kernel(rows.to(z), z) @ beta for rows in x.split(BLOCK)])


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor], right: Tensor, iterations: int, tol: float
) -> tuple[Tensor, tuple[float, ...]]:
    """Return the solution of A u = right, (M, P), a system a column, and the largest relative residual a step."""
    u, residual = torch.zeros_like(right), right.clone()
    direction, square = residual.clone(), residual.square().sum(0)  # (P,)
    first, history = square.clone().clamp(min=torch.finfo(right.dtype).tiny), []
    for _ in range(iterations):
        moved = apply(direction)
        curvature = (direction * moved).sum(0)
        step = torch.where(curvature > 0, square / curvature, 0.0)
        u, residual = u + step * direction, residual - step * moved
        new = residual.square().sum(0)
        history.append(float((new / first).max().sqrt()))
        if history[-1] <= tol:
            break
        direction = residual + torch.where(square > 0, new / square, 0.0) * direction
        square = new
    return u, tuple(history)


class _Blocks:
    """K_nm by blocks of rows; kept where memory allows."""

    def __init__(self, kernel: Kernel, x: Tensor, z: Tensor, kept: int | None = None) -> None:
        self.kernel, self.parts, self.z, self.rows = kernel, x.split(BLOCK), z, len(x)
        small = z.element_size() * len(x) * len(z) <= (KEPT if kept is None else kept)
        self.kept = [kernel(rows, z) for rows in self.parts] if small else None

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.kept) if self.kept is not None else (self.kernel(rows, self.z) for rows in self.parts)

    def transposed(self, y: Tensor) -> Tensor:
        """K_nm' y, (M, P)."""
        parts = zip(self, y.split(BLOCK), strict=True)
        return sum((block.mT @ rows.to(self.z)).double() for block, rows in parts)  # type: ignore[return-value]

    def normal(self, v: Tensor) -> Tensor:
        """K_nm' K_nm v, (M, P)."""
        scale = v.abs().max().clamp(min=torch.finfo(v.dtype).tiny)
        small = (v / scale).to(self.z)
        return scale * sum((block.mT @ (block @ small)).double() for block in self)


class _Preconditioner:
    r"""P with P P' close to the inverse of K_nm' K_nm + lambda K_mm, taking (n / s) K_sm' K_sm of s rows for the first.

    With K_mm = T'T and A'A = (n / s) T'^-1 K_sm' K_sm T^-1 + lambda I, P = T^-1 A^-1. Falkon takes the landmarks
    themselves for the s rows; more rows cost one product, and save iterations over all of them.
    """

    def __init__(self, gram: Tensor, sample: _Blocks, penalty: float, rows: int, jitter: float) -> None:
        gram.diagonal().add_(jitter * gram.diagonal().mean())  # penalises what the blocks cannot resolve
        self.gram = gram
        self.upper = torch.linalg.cholesky(gram, upper=True)
        inner, root = torch.zeros_like(gram), self.upper.to(sample.z)
        for block in sample:
            features = torch.linalg.solve_triangular(root, block, upper=True, left=False)  # (B, M), rows of norm 1
            inner += (features.mT @ features).double()
        inner *= rows / sample.rows
        inner.diagonal().add_(penalty)
        self.second = torch.linalg.cholesky(inner, upper=True)

    def __call__(self, u: Tensor) -> Tensor:
        inside = torch.linalg.solve_triangular(self.second, u, upper=True)
        return torch.linalg.solve_triangular(self.upper, inside, upper=True)

    def transposed(self, v: Tensor) -> Tensor:
        inside = torch.linalg.solve_triangular(self.upper.mT, v, upper=False)
        return torch.linalg.solve_triangular(self.second.mT, inside, upper=False)
