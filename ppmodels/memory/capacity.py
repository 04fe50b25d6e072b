"""How much a memory holds, in theory: the curves that simulations are drawn against."""

import math


def one_step_error(load: float) -> float:
    r"""Return the share of a stored pattern's bits that one update by Hebb's weights gets wrong.

    .. math:: \Phi(-1 / \sqrt\alpha), \qquad \alpha = K / N
    """
    _check(load)
    return math.erfc(1 / math.sqrt(2 * load)) / 2


def dense_error(units: int, patterns: int, degree: int) -> float:
    r"""Return the same for a dense memory of energy :math:`-\sum_\mu (x_\mu^\top s)^n`.

    .. math:: \Phi\Big(-\sqrt{N^{n-1} / ((2n-3)!!\, K)}\Big)

    Source: Krotov and Hopfield (2016), arXiv:1606.01164, section 2.
    """
    return math.erfc(math.sqrt(units ** (degree - 1) / (2 * _double_factorial(degree) * patterns))) / 2


def error_free_patterns(units: int, degree: int = 2) -> float:
    r"""Return the number of random patterns that are stored without any error, on the scale of large N.

    .. math:: K = \frac{N^{n-1}}{2 (2n-3)!! \ln N}

    Source: McEliece et al. (1987), IEEE Trans. Inf. Theory 33, for n = 2; Krotov and Hopfield (2016).
    """
    if units < 2 or degree < 2:
        raise ValueError(f"units and degree must be at least 2; they are {units} and {degree}")
    return units ** (degree - 1) / (2 * _double_factorial(degree) * math.log(units))


def mean_field_overlap(load: float) -> float:
    r"""Return the overlap m of the retrieval state with its pattern, 0 above the critical load.

    .. math:: y \big(\sqrt{2\alpha} + \tfrac{2}{\sqrt\pi} e^{-y^2}\big) = \mathrm{erf}\,y, \qquad m = \mathrm{erf}\,y

    at the largest y. Source: Amit, Gutfreund and Sompolinsky (1987), Annals of Physics 173, at zero temperature.
    """
    _check(load)
    target, low = math.sqrt(2 * load), _steepest()
    if target > _slope(low):
        return 0.0
    high = 1 / target
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _slope(middle) > target else (low, middle)
    return math.erf(low)


def critical_load() -> tuple[float, float]:
    """Return alpha_c, above which nothing is retrieved, and the overlap there: 0.1379 and 0.967."""
    y = _steepest()
    return _slope(y) ** 2 / 2, math.erf(y)


def _slope(y: float) -> float:
    """sqrt(2 alpha) as a function of y."""
    return math.erf(y) / y - 2 / math.sqrt(math.pi) * math.exp(-y * y)


def _steepest() -> float:
    """Where `_slope` is largest, by bisection on its derivative."""
    low, high = 1.0, 3.0
    for _ in range(100):
        y = (low + high) / 2
        gaussian = 2 / math.sqrt(math.pi) * math.exp(-y * y)
        rising = gaussian / y - math.erf(y) / y**2 + 2 * y * gaussian > 0
        low, high = (y, high) if rising else (low, y)
    return low


def _double_factorial(degree: int) -> int:
    """(2n - 3)!!"""
    return math.prod(range(2 * degree - 3, 0, -2))


def _check(load: float) -> None:
    if not 0 < load < math.inf:
        raise ValueError(f"load must be positive and finite; it is {load}")
