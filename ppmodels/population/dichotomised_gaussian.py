"""Dichotomised Gaussian: binary words with given means and covariances, as correlated normals cut at thresholds."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

NODES = 40  # of Gauss-Legendre quadrature along the correlation: 1e-12 up to 0.95
HALVINGS = 60
LARGEST = 1 - 1e-9


@dataclass(frozen=True)
class DichotomisedGaussian:
    r"""s_i = 1 where u_i > 0, with :math:`u \sim N(\gamma, \Lambda)`, \Lambda of unit diagonal.

    location: gamma (N,). correlation: Lambda (N, N).

    Source: Macke, Berens, Ecker, Tolias and Bethge (2009), Neural Computation 21, 397-423.
    """

    location: Tensor
    correlation: Tensor

    @classmethod
    def matching(cls, mean: Tensor, cov: Tensor, repair: bool = True) -> "DichotomisedGaussian":
        """Return the distribution of words with this mean (N,), in (0, 1), and covariance (N, N), off its diagonal.

        repair: where no Gaussian has these correlations pair by pair, take the nearest that one has.

        Raises: ValueError naming the neuron or the pair whose moments no word can have, or the missing Gaussian.
        """
        mean, cov = torch.as_tensor(mean).double(), torch.as_tensor(cov).double()
        wrong = ((mean <= 0) | (mean >= 1)).nonzero()
        if len(wrong):
            raise ValueError(
                f"the mean of neuron {int(wrong[0])} must be between 0 and 1; it is {mean[wrong[0]].item():g}"
            )
        i, j = torch.triu_indices(len(mean), len(mean), 1)
        both = cov[i, j] + mean[i] * mean[j]  # P(s_i = s_j = 1)
        least, most = (mean[i] + mean[j] - 1).clamp_min(0), torch.minimum(mean[i], mean[j])
        bad = ((both < least - 1e-12) | (both > most + 1e-12)).nonzero()
        if len(bad):
            pair = int(bad[0])
            said = f"neurons {int(i[pair])} and {int(j[pair])} cannot have covariance {float(cov[i[pair], j[pair]]):g}"
            raise ValueError(f"{said} with means {float(mean[i[pair]]):g} and {float(mean[j[pair]]):g}")
        location = torch.special.ndtri(mean)
        low, high = torch.full_like(both, -LARGEST), torch.full_like(both, LARGEST)
        for _ in range(HALVINGS):  # the chance of both rises with the correlation
            middle = (low + high) / 2
            above = both_fire(location[i], location[j], middle) > both
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        correlation = torch.eye(len(mean), dtype=torch.float64)
        correlation[i, j] = correlation[j, i] = (low + high) / 2
        values, vectors = torch.linalg.eigh(correlation)
        if float(values.min()) <= 0:
            if not repair:
                raise ValueError(f"no Gaussian has these correlations: an eigenvalue is {float(values.min()):.3g}")
            correlation = vectors * values.clamp_min(1e-8) @ vectors.mT
            scale = correlation.diagonal().rsqrt()
            correlation = correlation * scale * scale[:, None]
        return cls(location, correlation)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return mean (N,) and covariance (N, N) of the words."""
        mean = torch.special.ndtr(self.location)
        i, j = torch.triu_indices(len(mean), len(mean), 1)
        cov = torch.diag(mean * (1 - mean))
        both = both_fire(self.location[i], self.location[j], self.correlation[i, j])
        cov[i, j] = cov[j, i] = both - mean[i] * mean[j]
        return mean, cov

    def sample(self, number: int) -> Tensor:
        """Return words of 0 and 1, (number, N)."""
        root = torch.linalg.cholesky(self.correlation)
        noise = torch.randn(number, len(self.location), dtype=root.dtype, device=root.device)
        return (noise @ root.mT + self.location > 0).to(root)


def both_fire(one: Tensor, other: Tensor, correlation: Tensor) -> Tensor:
    r"""Return P(u > 0, v > 0) of normals with means `one`, `other`, unit variances and a correlation, (B,) each.

    .. math:: \Phi(a) \Phi(b) + \int_0^{\arcsin \rho} \frac{1}{2 \pi}
        \exp\Big(-\frac{a^2 - 2 a b \sin t + b^2}{2 \cos^2 t}\Big) dt

    Source: Drezner and Wesolowsky (1990), J. Statistical Computation and Simulation 35, by Plackett's identity.
    """
    nodes, weights = _legendre(NODES, one)
    angle = correlation.asin()[:, None]  # (B, 1)
    turned = angle * (nodes + 1) / 2  # (B, NODES)
    a, b = one[:, None], other[:, None]
    exponent = -(a * a - 2 * a * b * turned.sin() + b * b) / (2 * turned.cos().square())
    area = (exponent.exp() * weights).sum(-1) * correlation.asin() / 2 / (2 * math.pi)
    return torch.special.ndtr(one) * torch.special.ndtr(other) + area


def _legendre(number: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights on (-1, 1), by the eigenvalues of Jacobi's matrix (Golub and Welsch, 1969)."""
    k = torch.arange(1, number, dtype=torch.float64)
    side = k / (4 * k * k - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(side, 1) + torch.diag(side, -1))
    return nodes.to(like), (2 * vectors[0].square()).to(like)
