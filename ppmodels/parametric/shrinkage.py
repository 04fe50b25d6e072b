"""James and Stein: from three means on, pulling all of them towards one point beats the means themselves."""

from collections.abc import Callable

import numpy as np
import torch
from scipy import integrate, stats
from torch import Tensor


def james_stein(y: Tensor, noise: float = 1.0, target: Tensor | float = 0.0, positive: bool = True) -> Tensor:
    r"""Return estimates of the means of y (..., D), each seen once with sd `noise`.

    .. math:: \hat\theta = t + \left(1 - \frac{(d - 2) \sigma^2}{\lVert y - t \rVert^2}\right)_{(+)} (y - t)

    positive: never pull past the target, which is better still. With D <= 2 the answer is y, which nothing beats.
    Source: James and Stein (1961), Proc. Fourth Berkeley Symp. 1, 361-379; Baranchik (1964) for the positive part.
    """
    distance = y - target
    pull = max(y.shape[-1] - 2, 0) * noise**2 / distance.square().sum(-1, keepdim=True)
    factor = 1 - pull
    return target + (factor.clamp(min=0) if positive else factor) * distance


def james_stein_risk(dim: int, norm: float, positive: bool = False) -> float:
    r"""Return the exact mean squared error where the noise is 1 and the truth lies `norm` from the target.

    .. math:: d - (d - 2)^2 E \frac{1}{d - 2 + 2 K}, \quad K \sim Poisson(\lVert \theta \rVert^2 / 2)

    For the positive part: :math:`E g(S)^2 S - 2 \lVert\theta\rVert^2 E g(S') + \lVert\theta\rVert^2` with g the factor
    that y is shrunk by, and S, S' noncentral chi-squared with d and d + 2 degrees of freedom.
    Source: Lehmann and Casella (1998), Theory of Point Estimation, section 5.5.
    """
    if dim <= 2:
        return float(dim)
    if positive:
        return _risk_of_factor(lambda s: max(1 - (dim - 2) / s, 0.0), dim, norm, kink=dim - 2.0)
    half = norm**2 / 2
    last = int(half + 12 * np.sqrt(half) + 40)
    k = np.arange(last)
    return float(dim - (dim - 2) ** 2 * np.sum(stats.poisson.pmf(k, half) / (dim - 2 + 2 * k)))


def _risk_of_factor(factor: Callable[[float], float], dim: int, norm: float, kink: float) -> float:
    """The risk of g(|y|^2) y, which is zero below the kink, by quadrature."""

    def expected(value: Callable[[float], float], df: int) -> float:
        def density(s: float) -> float:
            return float(stats.ncx2.pdf(s, df, norm**2) if norm > 0 else stats.chi2.pdf(s, df))

        top = max(df + norm**2 + 40 * np.sqrt(2 * df + 4 * norm**2), 2 * kink)
        return integrate.quad(lambda s: value(s) * density(s), kink, top, limit=200)[0]

    square = expected(lambda s: factor(s) ** 2 * s, dim)
    return square - 2 * norm**2 * expected(factor, dim + 2) + norm**2


def least_squares(design: Tensor, y: Tensor, ridge: float = 0.0) -> tuple[Tensor, Tensor]:
    r"""Return coefficients (P,) and fitted values (N,) through the singular values of the design (N, P).

    .. math:: \hat\beta = V \frac{s}{s^2 + \lambda} U^\top y, \quad \hat{y} = U \frac{s^2}{s^2 + \lambda} U^\top y

    Without ridge the fitted values are a projection, however ill-conditioned the design; the coefficients' error grows
    as 1 over the smallest singular value. Singular values that are rounding errors are left out.
    """
    left, sizes, right = torch.linalg.svd(design, full_matrices=False)
    kept = sizes > max(design.shape) * torch.finfo(sizes.dtype).eps * sizes[0]
    gain = torch.where(kept, sizes / (sizes.square() + ridge), 0.0)
    part = left.mT @ y
    return right.mT @ (gain * part), left @ (sizes * gain * part)
