"""Kernel ridge regression: a penalised linear fit in feature space, which is the mean of a Gaussian process."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ppmodels.kernels.functions import Kernel, check_points


@dataclass(frozen=True)
class KernelRidge:
    r"""A fitted regression: every prediction is a sum of similarities to the rows it was fitted to.

    .. math:: f(x) = \sum_n \alpha_n k(x, x_n) + c, \qquad \alpha = (K + \lambda I)^{-1} (y - c)

    As a Gaussian process with noise variance lambda: f is the posterior mean, `variance` is f's.

    x (N, D); alpha (N, M) or (N,); intercept c (M,) or (), which was fitted when `centred`; factor: the Cholesky
    factor of K + lambda I, (N, N).
    """

    kernel: Kernel
    penalty: float
    x: Tensor
    alpha: Tensor
    intercept: Tensor
    factor: Tensor
    centred: bool = False

    @classmethod
    def fit(cls, x: Tensor, y: Tensor, kernel: Kernel, penalty: float, intercept: bool = False) -> "KernelRidge":
        """Fit y (N,) or (N, M) on x (N, D); with an intercept, to which the penalty does not apply.

        Raises: ValueError for input that does not fit, or when K + penalty I is singular.
        """
        x, y = check_points(x), torch.as_tensor(y)
        if len(y) != len(x) or not y.isfinite().all():
            raise ValueError(f"y must have {len(x)} finite rows, as x has; it is {tuple(y.shape)}")
        if not penalty >= 0:
            raise ValueError(f"penalty must not be negative; it is {penalty}")
        gram = kernel(x)
        gram.diagonal().add_(penalty)
        factor, failed = torch.linalg.cholesky_ex(gram)
        if failed or factor.diagonal().min() ** 2 < 1e-14 * gram.diagonal().max():
            raise ValueError(f"the kernel matrix is singular at penalty {penalty:g}{_twins(x)}; use a larger one")
        columns = y.to(x).reshape(len(x), -1)
        solved = torch.cholesky_solve(columns, factor)  # (N, M)
        offset = columns.new_zeros(columns.shape[1])
        if intercept:
            ones = torch.cholesky_solve(torch.ones_like(columns[:, :1]), factor)
            offset = solved.sum(0) / ones.sum()
            solved = solved - ones * offset
        shape = y.shape[1:]
        return cls(kernel, penalty, x, solved.reshape(len(x), *shape), offset.reshape(shape), factor, intercept)

    def predict(self, x: Tensor) -> Tensor:
        """Return f at x (n, D), (n,) or (n, M)."""
        return self.kernel(x.to(self.x), self.x) @ self.alpha + self.intercept

    def variance(self, x: Tensor) -> Tensor:
        """Return the posterior variance of f at x (n, D), (n,), of a Gaussian process with this kernel."""
        across = torch.linalg.solve_triangular(self.factor, self.kernel(self.x, x.to(self.x)), upper=False)
        return (self.kernel.diagonal(x.to(self.x)) - across.square().sum(0)).clamp(min=0)

    def fitted(self) -> Tensor:
        """Return the predictions at the rows it was fitted to, y - penalty alpha."""
        return self.kernel(self.x) @ self.alpha + self.intercept

    def leave_one_out(self) -> Tensor:
        r"""Return each row's residual when the fit never saw it, :math:`\alpha_n / [(K + \lambda I)^{-1}]_{nn}`.

        Exact and without a refit; with an intercept the inverse is that of the bordered system.
        """
        inverse = torch.cholesky_inverse(self.factor)  # (N, N)
        diagonal = inverse.diagonal()
        if self.centred:
            row = inverse.sum(0)
            diagonal = diagonal - row.square() / row.sum()
        return self.alpha / diagonal.reshape(-1, *[1] * (self.alpha.ndim - 1))

    def degrees_of_freedom(self) -> float:
        r"""Return the trace of the smoother K (K + lambda I)^-1, :math:`\sum_i \lambda_i / (\lambda_i + \lambda)`."""
        return float(len(self.x) - self.penalty * torch.cholesky_inverse(self.factor).diagonal().sum())


def penalty_path(gram: Tensor, y: Tensor, penalties: Tensor) -> dict[str, Tensor]:
    r"""Return what each penalty (L,) leads to, from one eigendecomposition of K (N, N).

    Returns: by name, (L,): `loo`, the mean squared leave-one-out residual; `gcv`, generalised
        cross-validation, :math:`\tfrac1N |y - \hat y|^2 / (1 - \mathrm{df} / N)^2`; `df`.
    """
    values, vectors = torch.linalg.eigh(gram)
    values = values.clamp(min=0)
    rotated = vectors.mT @ y.reshape(len(y), -1)  # (N, M)
    weight = 1 / (values + penalties[:, None])  # (L, N)
    alpha = torch.einsum("ni,li,im->lnm", vectors, weight, rotated)
    diagonal = weight @ vectors.square().mT  # of the inverse, (L, N)
    df = (values * weight).sum(-1)
    residual = penalties[:, None, None] * alpha
    gcv = residual.square().sum(1).mean(-1) / len(y) / (1 - df / len(y)).square()
    return {"loo": (alpha / diagonal[..., None]).square().mean((1, 2)), "gcv": gcv, "df": df}


def primal_ridge(features: Tensor, y: Tensor, penalty: float) -> Tensor:
    r"""Return :math:`w = (\Phi^\top \Phi + \lambda I)^{-1} \Phi^\top y`, (P,) or (P, M), of features (N, P)."""
    gram = features.mT @ features
    gram.diagonal().add_(penalty)
    return torch.linalg.solve(gram, features.mT @ y)


def nadaraya_watson(x: Tensor, y: Tensor, new: Tensor, kernel: Kernel) -> Tensor:
    """Return similarity-weighted means of y at new points, (n,) or (n, M)."""
    weight = kernel(new, x)  # (n, N)
    return (weight @ y) / weight.sum(-1).reshape(-1, *[1] * (y.ndim - 1))


def _twins(x: Tensor) -> str:
    """Name two equal rows, if there are."""
    _, inverse, counts = x.unique(dim=0, return_inverse=True, return_counts=True)
    if counts.max() == 1:
        return ""
    first, second = (inverse == counts.argmax()).nonzero()[:2, 0].tolist()
    return f": rows {first} and {second} are the same point"
