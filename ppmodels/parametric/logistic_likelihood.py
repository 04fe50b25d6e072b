"""Logistic regression by maximum likelihood: where the maximum exists, and how wrong it is with many features."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import optimize, special
from torch import Tensor

from ppmodels.parametric.family import Irregular


def logistic_maximum(design: Tensor, y: Tensor, num_steps: int = 60) -> tuple[Tensor, Tensor]:
    """Return coefficients (P,) and their information (P, P), for a design (N, P) and classes y (N,), 0 or 1.

    Raises: Irregular where a plane tells the classes apart, so that no finite coefficients are best; also where the
    columns of the design depend on one another.
    """
    coef, signs = design.new_zeros(design.shape[1]), 2 * y.to(design) - 1
    for _ in range(num_steps):
        linear = design @ coef
        share = linear.sigmoid()
        information = design.mT @ (design * (share * (1 - share))[:, None])
        root, failed = torch.linalg.cholesky_ex(information)
        separated = bool((signs * linear > 0).all()) and bool(coef.any())
        if separated or int(failed):
            why = "a plane tells the classes apart" if separated else "columns depend on one another, or it diverged"
            raise Irregular(f"no finite coefficients are best: {why}; a prior or a ridge makes them finite")
        slope = design.mT @ (y.to(design) - share)
        step = torch.cholesky_solve(slope[:, None], root)[:, 0]
        gain = float(slope @ step)
        if gain <= 1e-14 * len(y):
            return coef + step, information
        here = torch.nn.functional.logsigmoid(signs * linear).sum()
        while torch.nn.functional.logsigmoid(signs * (design @ (coef + step))).sum() < here + 1e-4 * gain:
            step, gain = step / 2, gain / 2
            if gain < 1e-300:
                raise Irregular("Newton's step does not go up: the likelihood is flat to rounding")
        coef = coef + step
    raise Irregular(f"no maximum in {num_steps} steps; a plane may all but tell the classes apart")


@dataclass(frozen=True)
class HighDimensional:
    r"""The law of the maximum where features number a fixed share kappa of the rows.

    bias: alpha, the slope of fitted on true coefficients. spread: sigma, their sd around it, where features have
    variance 1 / N. inflation: lambda, with which the law of likelihood ratios stretches.
    """

    bias: float
    spread: float
    inflation: float


def high_dimensional(kappa: float, gamma: float) -> HighDimensional:
    r"""Return how the maximum behaves with P = kappa N features and a signal of sd gamma in the log-odds.

    .. math:: \sigma^2 = \frac{2}{\kappa^2} E \rho'(Q_1) (\lambda \rho'(p))^2, \quad 0 = E \rho'(Q_1) Q_1 \rho'(p),
        \quad 1 - \kappa = E \frac{2 \rho'(Q_1)}{1 + \lambda \rho''(p)}

    with rho(t) = log(1 + e^t), p = prox of lambda rho at Q2, and (Q1, Q2) normal with variances gamma^2 and
    kappa sigma^2 + alpha^2 gamma^2 and covariance -alpha gamma^2.
    Raises: Irregular where the maximum does not exist, in the limit.
    Source: Sur and Candès (2019), PNAS 116, 14516-14525, equation 5.
    """
    if not 0 < kappa < 1 or not gamma > 0:
        raise ValueError(f"kappa lies in (0, 1) and gamma is positive; they are {kappa} and {gamma}")
    limit = existence_limit(gamma)
    if kappa >= limit:
        raise Irregular(f"no finite maximum: kappa is {kappa:g}, and a plane tells classes apart from {limit:.4g} on")
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    z, v = np.meshgrid(nodes, nodes, indexing="ij")
    mass = np.outer(weights, weights) / (2 * math.pi)

    def gaps(point: np.ndarray) -> list[float]:
        alpha, sigma, lam = point[0], *np.exp(point[1:])
        first = gamma * z
        second = -alpha * first + math.sqrt(kappa) * sigma * v
        share = special.expit(first)
        near = special.expit(_prox(second, lam))
        return [
            2 / kappa**2 * np.sum(mass * share * (lam * near) ** 2) / sigma**2 - 1,
            np.sum(mass * share * first * near) / gamma,
            np.sum(mass * 2 * share / (1 + lam * near * (1 - near))) - 1 + kappa,
        ]

    for scale in (1.0, 2.0, 4.0, 0.5):
        start = [1 + kappa, math.log(2 * scale), math.log(scale * max(4 * kappa, 0.1))]
        found = optimize.root(gaps, start, tol=1e-12)
        if np.abs(gaps(found.x)).max() < 1e-8:
            return HighDimensional(float(found.x[0]), *map(float, np.exp(found.x[1:])))
    raise ArithmeticError(f"the three equations were not solved at kappa {kappa}, gamma {gamma}")


def existence_limit(gamma: float) -> float:
    r"""Return the share of features from which on the maximum does not exist, for log-odds of sd gamma.

    .. math:: h(\gamma) = \min_t E (t V - Z)_+^2, \quad V \sim 2 \sigma(\gamma v) \phi(v),\; Z \sim N(0, 1)

    Source: Candès and Sur (2020), Annals of Statistics 48, 27-42, theorem 1.
    """
    v = np.linspace(-10, 10, 4001)
    mass = 2 * special.expit(gamma * v) * np.exp(-v * v / 2) / math.sqrt(2 * math.pi) * (v[1] - v[0])

    def expected(t: float) -> float:
        a = t * v
        return float(np.sum(mass * ((1 + a * a) * special.ndtr(a) + a * np.exp(-a * a / 2) / math.sqrt(2 * math.pi))))

    return float(optimize.minimize_scalar(expected, bounds=(-10 - 10 * gamma, 0), method="bounded").fun)


def _prox(x: np.ndarray, lam: float) -> np.ndarray:
    """The root z of z + lam expit(z) = x: between x - lam and x, by halving and then Newton's steps."""
    low, high = x - lam, x
    for _ in range(12):
        middle = (low + high) / 2
        above = middle + lam * special.expit(middle) > x
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    z = (low + high) / 2
    for _ in range(8):
        share = special.expit(z)
        z = np.clip(z - (z + lam * share - x) / (1 + lam * share * (1 - share)), low, high)
    return z
