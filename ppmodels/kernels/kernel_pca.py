"""Kernel principal components: PCA of features that are never written down."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import eigsh
from torch import Tensor

from ppmodels.kernels.functions import RBF, Kernel, check_points

FEW = 0.1  # share of the components below which an iterative solver is the faster one


@dataclass(frozen=True)
class KernelPCA:
    r"""Fitted components :math:`v_k = \sum_n \alpha_{nk} \bar\phi(x_n)`, of length 1 in feature space.

    .. math:: \bar K \alpha_k = \lambda_k \alpha_k, \qquad \alpha_k^\top \alpha_k = 1 / \lambda_k

    lambda is N times the variance along v. At most min(N - 1, rank of the features) are not null.

    x (N, D); alpha (N, Q); eigenvalues lambda (Q,); total: the trace of K-bar; column_mean (N,) of K.
    Source: Schölkopf, Smola and Müller (1998), Neural Computation 10.
    """

    kernel: Kernel
    x: Tensor
    alpha: Tensor
    eigenvalues: Tensor
    total: float
    column_mean: Tensor

    @classmethod
    def fit(cls, x: Tensor, kernel: Kernel, components: int | None = None) -> "KernelPCA":
        """Return the leading components, or all that are not null, of rows x (N, D).

        Raises: ValueError when the rows are all alike, or there are fewer components than asked for.
        """
        x = check_points(x)
        if components is not None and components < 1:
            raise ValueError(f"components must be at least 1; it is {components}")
        gram = kernel(x)
        mean, centred = gram.mean(0), centre(gram)
        values, vectors = _leading(centred, components)
        total = float(centred.diagonal().sum())
        kept = values > 10 * len(x) * torch.finfo(x.dtype).eps * gram.diagonal().max()  # the rest is rounding
        if not kept.any():
            raise ValueError("the rows are all the same point to this kernel; there are no components")
        if components is not None and kept.sum() < components:
            raise ValueError(f"only {int(kept.sum())} components are not null; {components} were asked for")
        values, vectors = values[kept], vectors[:, kept]
        return cls(kernel, x, vectors / values.sqrt(), values, total, mean)

    def transform(self, x: Tensor) -> Tensor:
        """Return the scores of x (n, D), (n, Q): inner products with the components."""
        return centre_new(self.kernel(x.to(self.x), self.x), self.column_mean) @ self.alpha

    def scores(self) -> Tensor:
        r"""Return the scores of the rows it was fitted to, :math:`\sqrt{\lambda_k} u_k`, (N, Q)."""
        return self.alpha * self.eigenvalues

    def explained(self) -> Tensor:
        """Return the share of the variance in feature space along each component, (Q,)."""
        return self.eigenvalues / self.total

    def reconstruction_error(self) -> float:
        """Return the squared distance in feature space between the rows and their projections, summed."""
        return self.total - float(self.eigenvalues.sum())

    def pre_image(self, scores: Tensor, start: Tensor | None = None, iterations: int = 200) -> Tensor:
        r"""Return points whose features come close to these scores (n, Q), (n, D); for an RBF kernel.

        .. math:: z \leftarrow \frac{\sum_n \gamma_n k(z, x_n)\, x_n}{\sum_n \gamma_n k(z, x_n)}

        start: where to begin, (n, D); by default at the row whose scores are nearest.
        Raises: ValueError for another kernel. Source: Mika et al. (1999), NIPS 11.
        """
        if not isinstance(self.kernel, RBF):
            raise ValueError(f"a pre-image is only known for the RBF kernel, not {type(self.kernel).__name__}")
        z = self.x[torch.cdist(scores, self.scores()).argmin(-1)] if start is None else start.clone()
        weight = scores @ self.alpha.mT  # (n, N)
        weight = weight + (1 - weight.sum(-1, keepdim=True)) / len(self.x)  # the mean is a feature too
        for _ in range(iterations):
            share = weight * self.kernel(z, self.x)
            total = share.sum(-1, keepdim=True)
            moved = torch.where(total.abs() > 1e-12, share @ self.x / total, z)
            done = (moved - z).abs().max() < 1e-10
            z = moved
            if done:
                break
        return z


def centre(gram: Tensor) -> Tensor:
    """Return K - JK - KJ + JKJ, J all 1 / N: the Gram matrix of features from which their mean was taken."""
    mean = gram.mean(0)
    return gram - mean - gram.mean(1, keepdim=True) + mean.mean()


def centre_new(gram: Tensor, column_mean: Tensor) -> Tensor:
    """Return the same for new rows, k(new, old) (n, N), by the means over the old ones, (N,)."""
    return gram - column_mean - gram.mean(1, keepdim=True) + column_mean.mean()


def _leading(gram: Tensor, components: int | None) -> tuple[Tensor, Tensor]:
    """Largest eigenvalues first, (Q,), and their vectors, (N, Q)."""
    size = len(gram)
    if components is not None and size > 500 and components < FEW * size:
        start = np.random.default_rng(0).normal(size=size)  # the same result every time
        values, vectors = eigsh(gram.double().numpy(), components, which="LA", v0=start)
        values, vectors = torch.from_numpy(values).to(gram), torch.from_numpy(vectors).to(gram)
    else:
        values, vectors = torch.linalg.eigh((gram + gram.mT) / 2)
    values, vectors = values.flip(0)[:components], vectors.flip(1)[:, :components]
    largest = vectors.abs().argmax(0)
    return values, vectors * vectors[largest, torch.arange(len(largest))].sign()
