r"""Four losses with one minimiser: the score of the (noisy) data.

Every loss is given row by row, (N,), so that its variance can be seen; its mean is the objective. They differ
by constants: explicit = denoising + C with :math:`C = \tfrac12 E\|\nabla\log p_\sigma\|^2 -
\tfrac12 E\|\nabla\log q\|^2`, and explicit = implicit + :math:`\tfrac12 E\|\nabla\log p\|^2`.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution

Score = Callable[[Tensor], Tensor]


def explicit(score: Score, x: Tensor, truth: Score) -> Tensor:
    """Half the squared distance to the true score at x (N, D), (N,)."""
    return 0.5 * _squared(_scored(score, x) - truth(x))


def denoising(score: Score, x: Tensor, noise: Tensor, kernel: Distribution) -> Tensor:
    """Half the squared distance to the score of the noise that was added, (N,).

    kernel: law of the noise, with the event shape of a row or none: Normal, Laplace, StudentT, ...
    noise: a draw of it for every row, (N, D).

    Source: Vincent (2011), Neural Computation 23, equation 9.
    """
    _same(x, noise)
    return 0.5 * _squared(_scored(score, x + noise) - noise_score(noise, kernel))


def denoising_gaussian(score: Score, x: Tensor, z: Tensor, sigma: float | Tensor) -> Tensor:
    r"""The Gaussian case in units of the noise, :math:`\tfrac12 \|\psi(x + \sigma z) + z / \sigma\|^2`, (N,).

    z: standard normal, (N, D).
    """
    _same(x, z)
    return 0.5 * _squared(_scored(score, x + sigma * z) + z / sigma)


def implicit(score: Score, x: Tensor) -> Tensor:
    r"""Hyvärinen's :math:`\mathrm{tr}\,\nabla\psi + \tfrac12\|\psi\|^2`, D backward passes, (N,).

    Source: Hyvärinen (2005), JMLR 6, equation 4.
    """
    leaf = x.detach().requires_grad_()
    value = _scored(score, leaf)
    basis = torch.eye(value[0].numel()).to(value)  # (D, D)
    trace = torch.stack([_along(value, leaf, e.reshape(value[0].shape).expand_as(value)) for e in basis])
    return trace.sum(0) + 0.5 * _squared(value)


def sliced(score: Score, x: Tensor, directions: Tensor, reduced: bool = True) -> Tensor:
    r"""Hyvärinen's loss along random directions v, (N,).

    .. math:: v^\top \nabla\psi\, v + \tfrac12 \|\psi\|^2 \quad\text{or, not reduced, } \tfrac12 (v^\top\psi)^2

    directions: (N, D) with identity covariance, normal or of signs.

    Source: Song et al. (2019), arXiv:1905.07088, equations 7 and 8.
    """
    _same(x, directions)
    leaf = x.detach().requires_grad_()
    value = _scored(score, leaf)
    size = _squared(value) if reduced else (value * directions).flatten(1).sum(-1) ** 2
    return _along(value, leaf, directions) + 0.5 * size


def constant(truth: Score, noisy: Tensor, noise: Tensor, kernel: Distribution) -> Tensor:
    """Explicit less denoising, whatever the model, row by row: its mean is C, (N,).

    truth: score of the noisy data. noisy: data + noise, (N, D).
    """
    _same(noisy, noise)
    return 0.5 * (_squared(truth(noisy)) - _squared(noise_score(noise, kernel)))


def noise_score(noise: Tensor, kernel: Distribution) -> Tensor:
    """Gradient of the kernel's log density, (N, D); that of log q(noisy | clean) in the noisy value.

    Raises: ValueError when the kernel's event does not fit a row.
    """
    if noise.shape[noise.ndim - len(kernel.event_shape) :] != kernel.event_shape:
        raise ValueError(f"noise {tuple(noise.shape)} does not end in the kernel's {tuple(kernel.event_shape)}")
    with torch.enable_grad():
        leaf = noise.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(kernel.log_prob(leaf).sum(), leaf)
    return gradient


def tweedie(noisy: Tensor, score: Tensor, sigma: float | Tensor, alpha: float | Tensor = 1.0) -> Tensor:
    """E[clean | noisy] from the score, for noisy = alpha clean + sigma N(0, I), shaped like noisy.

    Source: Efron (2011), JASA 106, equation 1.4.
    """
    return (noisy + sigma**2 * score) / alpha


def kernel_density_score(x: Tensor, data: Tensor, sigma: float) -> Tensor:
    """The minimiser of the denoising loss on finitely many data (M, D): the score of their KDE, (N, D)."""
    weights = (-(torch.cdist(x, data) ** 2) / (2 * sigma**2)).softmax(-1)  # (N, M)
    return (weights @ data - x) / sigma**2


def _along(value: Tensor, leaf: Tensor, direction: Tensor) -> Tensor:
    """The derivative of direction' value along that direction, (N,)."""
    if not value.requires_grad:  # a constant score
        return torch.zeros_like(value[..., 0]) if value.ndim == 2 else value.new_zeros(len(value))
    (gradient,) = torch.autograd.grad((value * direction).sum(), leaf, create_graph=True)
    return (gradient * direction).flatten(1).sum(-1)


def _squared(x: Tensor) -> Tensor:
    return x.square().flatten(1).sum(-1)


def _scored(score: Score, x: Tensor) -> Tensor:
    value = score(x)
    _same(x, value)
    return value


def _same(x: Tensor, other: Tensor) -> None:
    if x.shape != other.shape or x.ndim < 2:
        raise ValueError(f"two tensors of one shape (N, ...) are needed; got {tuple(x.shape)}, {tuple(other.shape)}")
