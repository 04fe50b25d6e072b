"""Logarithms of the incomplete gamma function's two sides, with derivatives in both arguments, which torch's lack."""

import numpy as np
import torch
from torch import Tensor

_REACH = 45.0  # nats below its peak where the integrand adds nothing in float64


def log_gamma_cdf(shape: Tensor, x: Tensor) -> Tensor:
    """Return log P(X <= x) for a gamma law of scale 1, as shape and x broadcast."""
    shape, x = torch.broadcast_tensors(shape, x)
    fixed = shape.detach()
    low = torch.minimum(fixed, x.detach()).log() - _width(fixed)
    return _integral(shape, low, torch.minimum(x, _beyond(fixed)).log())


def log_gamma_survival(shape: Tensor, x: Tensor) -> Tensor:
    """Return log P(X > x) for a gamma law of scale 1, as shape and x broadcast."""
    shape, x = torch.broadcast_tensors(shape, x)
    low = torch.maximum(_before(shape.detach()), x.log())
    return _integral(shape, low, _beyond(torch.maximum(shape, x).detach()).log())


def _width(shape: Tensor) -> Tensor:
    """How far, in log t, the integrand falls by that many nats on its left: a parabola, then a line."""
    return _REACH / shape + (2 * _REACH / shape).sqrt()


def _before(shape: Tensor) -> Tensor:
    return shape.log() - _width(shape)


def _beyond(peak: Tensor) -> Tensor:
    return peak + _REACH + (2 * _REACH * peak).sqrt()


def _integral(shape: Tensor, low: Tensor, high: Tensor) -> Tensor:
    r"""Log of :math:`\int_{low}^{high} e^{k u - e^u} du / \Gamma(k)`, where u = log t, by Gauss and Legendre."""
    nodes, weights = np.polynomial.legendre.leggauss(160)
    half = (high - low) / 2
    u = low[..., None] + half[..., None] * (1 + torch.as_tensor(nodes).to(shape))  # (..., 160)
    terms = shape[..., None] * u - u.exp() + torch.as_tensor(np.log(weights)).to(shape)
    return terms.logsumexp(-1) + half.log() - shape.lgamma()
