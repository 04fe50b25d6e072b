"""What no estimator can beat: Cramér and Rao's bound, with bias."""

from torch import Tensor

from ppmodels.parametric.family import Irregular


def cramer_rao(information: Tensor, bias: Tensor | None = None, bias_slope: Tensor | None = None) -> Tensor:
    r"""Return the least mean squared error, (..., P, P), of any estimator with this bias.

    .. math:: E (\hat\theta - \theta)(\hat\theta - \theta)^\top \succeq
        (I + b') \, \mathcal{I}^{-1} (I + b')^\top + b b^\top

    information: Fisher's, of all rows, (..., P, P). bias: b, (..., P). bias_slope: b' by theta, (..., P, P).
    Without them the bound is for unbiased estimators; a biased one may lie below it.
    Raises: ValueError for a bias that changes with theta in a way that is not told; Irregular for no information.
    Source: Lehmann and Casella (1998), Theory of Point Estimation, theorem 2.6.6.
    """
    if (bias is None) != (bias_slope is None):
        raise ValueError("a bias needs both: its value, and its slope by theta (zero where it is constant)")
    if bool((information.diagonal(dim1=-2, dim2=-1) <= 0).any()):
        raise Irregular("a parameter has no information, so its error has no bound")
    unbiased = information.inverse()
    if bias is None or bias_slope is None:
        return unbiased
    slope = bias_slope.clone()
    slope.diagonal(dim1=-2, dim2=-1).add_(1)
    return slope @ unbiased @ slope.mT + bias[..., :, None] * bias[..., None, :]
