"""Several Gaussians at once, each a diagonal plus a low rank: no matrix is ever D x D.

    x = loc + scale (u + Q (L - I) Q' u),   u ~ N(0, I)

Q (D, K) has orthonormal columns and L (K, K) is lower triangular, so the covariance is
diag(scale) (I + Q (L L' - I) Q') diag(scale).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from inference.optimum.curvature import curved, triangle


@dataclass(frozen=True)
class Normals:
    """loc, scale (..., D); basis (..., D, K); factor (..., K, K)."""

    loc: Tensor
    scale: Tensor
    basis: Tensor
    factor: Tensor

    def __getitem__(self, index: object) -> "Normals":
        return Normals(self.loc[index], self.scale[index], self.basis[index], self.factor[index])  # type: ignore[index]

    @property
    def log_det(self) -> Tensor:
        """Log determinant of the square root of the covariance, (...)."""
        return self.scale.log().sum(-1) + self.factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def transform(self, u: Tensor) -> Tensor:
        """Return draws, (..., S, D), of standard normal noise u, (..., S, D)."""
        inside = u @ self.basis  # (..., S, K)
        outside = (inside @ self.factor.mT - inside) @ self.basis.mT
        return self.loc[..., None, :] + self.scale[..., None, :] * (u + outside)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log q(x), (..., S), of x, (..., S, D)."""
        z = (x - self.loc[..., None, :]) / self.scale[..., None, :]
        inside = z @ self.basis
        white = torch.linalg.solve_triangular(self.factor, inside.mT, upper=False)
        square = (z * z).sum(-1) - (inside * inside).sum(-1) + (white * white).sum(-2)
        return -0.5 * (square + x.shape[-1] * math.log(2 * math.pi)) - self.log_det[..., None]

    def entropy_at(self, u: Tensor) -> Tensor:
        """Return -log q, (..., S), at the draws that the noise u, (..., S, D), makes."""
        return 0.5 * ((u * u).sum(-1) + u.shape[-1] * math.log(2 * math.pi)) + self.log_det[..., None]

    def covariance(self) -> Tensor:
        """Return the covariances, (..., D, D); only where D is small."""
        eye = torch.eye(self.loc.shape[-1], dtype=self.loc.dtype, device=self.loc.device)
        root = self.transform(eye.expand(*self.loc.shape[:-1], *eye.shape)) - self.loc[..., None, :]
        return root.mT @ root


def from_pairs(x: Tensor, grad: Tensor, scale: Tensor, s: Tensor, y: Tensor) -> tuple[Normals, Tensor]:
    """Return N(x + H grad, H) with H the inverse Hessian of pairs s, y, (..., M, D), and which are sound, (...).

    x, grad, scale (..., D): a point, the gradient of the log density there, and the diagonal of the initial H.
    Source: Zhang, Carpenter, Gelman and Vehtari (2022), JMLR 23, algorithm 4, of which this is the batched form.
    """
    use = curved(s, y)[..., None]
    s, y, root = torch.where(use, s, 0.0), torch.where(use, y, 0.0), scale.sqrt()
    product = s @ y.mT  # (..., M, M)
    eye = torch.eye(product.shape[-1], dtype=x.dtype, device=x.device)
    inverse = torch.linalg.solve_triangular(triangle(product), eye.expand_as(product), upper=True)
    energy = torch.diag_embed(product.diagonal(dim1=-2, dim2=-1))
    wide = torch.cat([root[..., None, :] * y, s / root[..., None, :]], -2).mT  # (..., D, 2M)
    weighted = root[..., None, :] * y
    corner = inverse.mT @ (energy + weighted @ weighted.mT) @ inverse
    upper = torch.cat([torch.zeros_like(inverse), -inverse], -1)
    middle = torch.cat([upper, torch.cat([-inverse.mT, corner], -1)], -2)  # (..., 2M, 2M)
    basis, r = torch.linalg.qr(wide)
    inner = r @ middle @ r.mT
    inner = 0.5 * (inner + inner.mT) + torch.eye(inner.shape[-1], dtype=x.dtype, device=x.device)
    factor, failed = torch.linalg.cholesky_ex(inner)
    good = (failed == 0) & factor.isfinite().all((-1, -2))
    factor = torch.where(good[..., None, None], factor, torch.eye(factor.shape[-1], dtype=x.dtype, device=x.device))
    centred = Normals(x, root, basis, factor)
    half = (root * grad)[..., None, :]
    inside = half @ basis
    step = half + (inside @ factor @ factor.mT - inside) @ basis.mT
    loc = x + root * step[..., 0, :]
    good &= loc.isfinite().all(-1)
    return Normals(torch.where(good[..., None], loc, x), centred.scale, basis, factor), good
