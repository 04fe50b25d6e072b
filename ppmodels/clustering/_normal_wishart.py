"""Normal-Wishart: the conjugate law of a Gaussian's mean and precision, a batch of components at a time."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppmodels.base import Theta
from ppmodels.clustering._statistics import Statistics


@dataclass(frozen=True)
class NormalWishart:
    r"""A law of mean and precision for each component.

    .. math:: \Lambda \sim W(\nu, S^{-1}),\; \mu \mid \Lambda \sim N(m, (\kappa \Lambda)^{-1})

    mean (K, D); rows: kappa (K,); degrees: nu (K,); root: lower triangular C with C C' = S, (K, D, D).
    """

    mean: Tensor
    rows: Tensor
    degrees: Tensor
    root: Tensor

    def given(self, sums: Statistics) -> "NormalWishart":
        """Return the posterior.

        Source: Murphy (2007), Conjugate Bayesian analysis of the Gaussian distribution, section 8.
        """
        rows, gap = self.rows + sums.count, sums.mean - self.mean
        pull = (sums.count * self.rows / rows)[:, None, None] * gap[:, :, None] * gap[:, None]
        root = torch.linalg.cholesky(self.root @ self.root.mT + sums.scatter + pull)
        mean = self.mean + (sums.count / rows)[:, None] * gap
        return NormalWishart(mean, rows, self.degrees + sums.count, root)

    @property
    def expected_log_det(self) -> Tensor:
        """E log |Lambda|, (K,)."""
        dim = self.mean.shape[1]
        return _digamma(self.degrees / 2, dim) + dim * math.log(2) - self.log_det

    @property
    def log_det(self) -> Tensor:
        """Log |S|, (K,)."""
        return 2 * self.root.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    @property
    def factor(self) -> Tensor:
        """W with W'W = E Lambda, (K, D, D), lower triangular."""
        eye = torch.eye(self.mean.shape[1]).to(self.root)
        return self.degrees.sqrt()[:, None, None] * torch.linalg.solve_triangular(self.root, eye, upper=False)

    def divergence(self, other: "NormalWishart") -> Tensor:
        """Return KL(self || other), (K,)."""
        dim, gap = self.mean.shape[1], self.mean - other.mean
        ratio = other.rows / self.rows
        white = torch.linalg.solve_triangular(self.root, gap[..., None], upper=False)[..., 0]
        normal = dim * (ratio - 1 - ratio.log()) / 2 + other.rows * self.degrees * white.square().sum(-1) / 2
        half = torch.linalg.solve_triangular(self.root, other.root, upper=False)  # tr(S_0 S^-1) = |half|^2
        scale = other.degrees * (self.log_det - other.log_det) / 2
        shape = self.degrees * (half.square().sum((-2, -1)) - dim) / 2
        gamma = _lgamma(other.degrees / 2, dim) - _lgamma(self.degrees / 2, dim)
        return normal + scale + shape + gamma + (self.degrees - other.degrees) * _digamma(self.degrees / 2, dim) / 2

    def sample(self) -> tuple[Tensor, Tensor]:
        """Return a mean (K, D), and W with W'W the precision, (K, D, D): Bartlett's decomposition."""
        components, dim = self.mean.shape
        degrees = self.degrees[:, None] - dim + 1 + torch.arange(dim).to(self.mean)  # (K, D)
        white = torch.randn(components, dim, dim).to(self.mean).tril(-1)
        white = white + torch.distributions.Chi2(degrees).sample().sqrt().diag_embed()
        factor = torch.linalg.solve_triangular(self.root, white, upper=False, left=False)
        noise = torch.randn(components, dim, 1).to(self.mean) / self.rows.sqrt()[:, None, None]
        return self.mean + torch.linalg.solve_triangular(factor, noise, upper=False)[..., 0], factor

    def repeat(self, number: int) -> "NormalWishart":
        """Return the laws so many times over, as more components."""
        parts = (self.mean, self.rows, self.degrees, self.root)
        return NormalWishart(*(part.repeat(number, *[1] * (part.ndim - 1)) for part in parts))

    def log_predictive(self, x: Tensor) -> Tensor:
        """Return the log density of a next row, Student's t, (N, K)."""
        dim, freedom = self.mean.shape[1], self.degrees - self.mean.shape[1] + 1
        spread = ((self.rows + 1) / self.rows).sqrt()
        table = []
        for k in range(len(self.mean)):
            white = torch.linalg.solve_triangular(self.root[k], (x - self.mean[k]).mT, upper=False) / spread[k]
            table.append((freedom[k] + dim) / 2 * white.square().sum(0).log1p())
        constant = ((freedom + dim) / 2).lgamma() - (freedom / 2).lgamma() - dim / 2 * math.log(math.pi)
        return constant - self.log_det / 2 - dim * spread.log() - torch.stack(table, -1)


def sites(factor: Tensor) -> Theta:
    """Return `precision` (K, D) and `off_diagonal` (K, P) of W, (K, D, D)."""
    i, j = torch.tril_indices(factor.shape[-1], factor.shape[-1], -1)
    theta = {"precision": factor.diagonal(dim1=-2, dim2=-1).square()}
    return theta | ({"off_diagonal": factor[..., i, j]} if factor.shape[-1] > 1 else {})


def prior_of(model: Any) -> NormalWishart:
    """Return the prior of each component, from the fields of the model, in float64."""
    center, scale = (torch.tensor(field).double().expand(model.dim) for field in (model.center, model.scale))
    each = torch.ones(model.components, dtype=torch.float64)
    root = (math.sqrt(model.strength) * model.width * scale).diag().expand(model.components, -1, -1)
    mean = center.expand(model.components, -1)
    return NormalWishart(mean, each * model.shrinkage, each * (model.strength + model.dim - 1), root)


def _lgamma(a: Tensor, dim: int) -> Tensor:
    """Log of the multivariate gamma function, less its power of pi."""
    return (a[..., None] - torch.arange(dim).to(a) / 2).lgamma().sum(-1)


def _digamma(a: Tensor, dim: int) -> Tensor:
    """Its derivative."""
    return (a[..., None] - torch.arange(dim).to(a) / 2).digamma().sum(-1)
