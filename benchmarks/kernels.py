"""Kernels: marginal likelihoods beside gpytorch, a hundred thousand rows beside scikit-learn, kernel PCA of as many."""

import math
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpytorch
import numpy as np
import torch
from sklearn.decomposition import KernelPCA as TheirPCA
from sklearn.kernel_approximation import Nystroem
from torch import Tensor

from benchmarks._clock import fastest, timed
from benchmarks._record import recorded
from ppmodels.kernels._marginal import log_marginal
from ppmodels.kernels.functions import RBF
from ppmodels.kernels.kernel_pca import KernelPCA
from ppmodels.kernels.landmarks import LandmarkRidge
from ppmodels.kernels.nystrom_pca import NystromPCA

ROWS, COLUMNS, PENALTY = 100_000, 8, 0.1


def compare(
    sizes: tuple[int, ...] = (1000, 2000, 4000),
    rows: int = ROWS,
    landmarks: tuple[int, ...] = (1000, 2000),
    out: Path | None = None,
) -> None:
    """Print the tables; one thread, processor seconds.

    Args:
        sizes: rows of the marginal likelihoods.
        rows: of kernel ridge regression and of kernel PCA.
        landmarks: of kernel ridge regression.
        out: a file for the tables as text.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with recorded(out, "torch", "gpytorch", "scikit-learn"):
        marginal(sizes)
        ridge(rows, landmarks)
        components(rows)


def marginal(sizes: tuple[int, ...]) -> None:
    """Log marginal likelihood and its gradient by 10 parameters; the peer by its exact Cholesky path."""
    print(f"GP log marginal likelihood and gradient, RBF with {COLUMNS} lengthscales; least of 3 runs")
    print(f"{'rows':>6} {'dtype':>8} {'ours':>8} {'gpytorch':>9} {'ratio':>6} {'gap in value':>13} {'in gradient':>12}")
    for dtype in (torch.float32, torch.float64):
        for rows in sizes:
            x = torch.randn(rows, COLUMNS, dtype=dtype)
            y = x[:, :4].sum(-1).div(2).sin() + 0.1 * torch.randn(rows, dtype=dtype)
            sides = ours(x, y), theirs(x, y)
            (value, slope), (other, their_slope) = (run() for run in sides)
            seconds = [fastest(run, 3) for run in sides]
            gap = float((slope - their_slope).abs().max() / their_slope.abs().max())
            print(f"{rows:>6} {str(dtype)[6:]:>8} {seconds[0]:>8.3f} {seconds[1]:>9.3f} "
                  f"{seconds[1] / seconds[0]:>6.2f} "
                  f"{abs(float(value - other) / float(other)):>13.1e} {gap:>12.1e}")  # fmt: skip


def ours(x: Tensor, y: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    """Value, and gradient by the lengthscales."""
    leaves = [torch.full((COLUMNS,), 1.5), torch.tensor(1.0), torch.tensor(0.2)]
    ell, a, s = (leaf.to(x).requires_grad_() for leaf in leaves)

    def run() -> tuple[Tensor, Tensor]:
        value = log_marginal(y, x, ell, a, s)
        return value.detach(), torch.autograd.grad(value, [ell, a, s])[0]

    return run


def theirs(x: Tensor, y: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    """The same by gpytorch, with conjugate gradients, which it takes from 800 rows on, turned off."""
    likelihood = gpytorch.likelihoods.GaussianLikelihood()

    class Exact(gpytorch.models.ExactGP):
        def __init__(self) -> None:
            super().__init__(x, y, likelihood)
            self.mean_module = gpytorch.means.ZeroMean()
            self.covar_module = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel(ard_num_dims=COLUMNS))

        def forward(self, x: Tensor) -> Any:
            return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))

    model = Exact().to(x)
    likelihood.to(x)
    kernel = model.covar_module.base_kernel
    kernel.lengthscale, model.covar_module.outputscale, likelihood.noise = 1.5, 1.0, 0.04
    model.train()
    likelihood.train()
    marginal_likelihood = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)

    def run() -> tuple[Tensor, Tensor]:
        exact = gpytorch.settings.fast_computations(False, False, False)
        with gpytorch.settings.max_cholesky_size(10**6), exact:
            model.zero_grad()
            value = marginal_likelihood(model(x), y) * len(x)
            value.backward()
        return value.detach(), kernel.raw_lengthscale.grad[0] / torch.sigmoid(kernel.raw_lengthscale[0].detach())

    return run


def ridge(rows: int, landmarks: tuple[int, ...]) -> None:
    """Fit and error on a thousand new rows, the same landmarks' number, kernel and penalty."""
    x = torch.randn(rows + 1000, COLUMNS)
    y = (x[:, :4].sum(-1) / 2).sin() + 0.1 * torch.randn(rows + 1000)
    kernel = RBF(2.0)
    print(f"\nKernel ridge regression, n = {rows}, d = {COLUMNS}, RBF, penalty {PENALTY}; fit in processor seconds")
    print(f"{'landmarks':>10} {'ours, float32':>20} {'Nystroem, float32':>20} {'Nystroem, float64':>20} {'ratio':>6}")
    for number in landmarks:
        start = time.process_time()
        fit = LandmarkRidge.fit(x[:rows], y[:rows], kernel, PENALTY, landmarks=number)
        cells = [(time.process_time() - start, rmse(fit.predict(x[rows:]), y[rows:]))]
        cells += [nystroem(x.to(dtype), y.to(dtype), rows, number) for dtype in (torch.float32, torch.float64)]
        told = " ".join(f"{f'{seconds:.1f} s, rmse {error:.4f}':>20}" for seconds, error in cells)
        print(f"{number:>10} {told} {min(cells[1][0], cells[2][0]) / cells[0][0]:>6.2f}")


def nystroem(x: Tensor, y: Tensor, rows: int, landmarks: int) -> tuple[float, float]:
    """scikit-learn's features by blocks, so that they fit into memory, and the normal equations."""
    start = time.process_time()
    features = Nystroem(kernel="rbf", gamma=1 / 8, n_components=landmarks, random_state=0).fit(x[:rows].numpy())
    gram, right = np.zeros((landmarks, landmarks)), np.zeros(landmarks)
    for part, target in zip(x[:rows].split(8192), y[:rows].split(8192), strict=True):
        phi = features.transform(part.numpy())
        gram += phi.T @ phi
        right += phi.T @ target.numpy()
    weight = np.linalg.solve(gram + PENALTY * np.eye(landmarks), right)
    seconds = time.process_time() - start
    return seconds, rmse(torch.from_numpy(features.transform(x[rows:].numpy()) @ weight), y[rows:])


def components(rows: int) -> None:
    """Ten components: exact beside scikit-learn's solvers, then by landmarks where an exact Gram matrix cannot be."""
    print("\nKernel PCA, 10 components, RBF; processor seconds, variances against the exact ones")
    kernel, x = RBF(2.0), torch.randn(max(rows, 4000), COLUMNS, dtype=torch.float64)
    seconds, exact = timed(lambda: KernelPCA.fit(x[:4000], kernel, 10))
    print(f"  n = 4000: ours {seconds:.2f}", end="")
    for solver in ("dense", "arpack", "randomized"):
        seconds, _ = timed(
            lambda solver=solver: TheirPCA(10, kernel="rbf", gamma=1 / 8, eigen_solver=solver).fit(x[:4000].numpy())
        )
        print(f", scikit-learn {solver} {seconds:.2f}", end="")
    for number in (500, 1000):
        seconds, near = timed(lambda number=number: NystromPCA.fit(x[:4000], kernel, 10, number))
        gap = float((near.eigenvalues / exact.eigenvalues - 1).abs().max())
        print(f"\n  n = 4000, {number} landmarks: {seconds:.2f}, variances off by at most {gap:.1%}", end="")
    print()
    for number in (500, 1000):
        seconds, fit = timed(lambda number=number: NystromPCA.fit(x.float(), kernel, 10, number))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        share = float(fit.explained().sum())
        print(f"  n = {rows}, {number} landmarks: {seconds:.1f}; 10 components hold {share:.1%} of the variance; "
              f"peak of the run {memory:.1f} GiB (a Gram matrix would take {8 * rows**2 / 2**30:.0f})")  # fmt: skip


def rmse(found: Tensor, truth: Tensor) -> float:
    """Root mean squared error."""
    return math.sqrt((found - truth).square().mean())
