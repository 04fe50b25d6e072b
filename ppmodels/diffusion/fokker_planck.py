r"""Densities that spread and drift: the heat equation and Fokker and Planck's.

.. math:: \partial_t C = D\, \partial_x^2 C, \qquad \partial_t p = -\partial_x (A p) + \partial_x^2 (B p)

For :math:`dx = A\,dt + \sigma\,dW` the diffusion is :math:`B = \sigma^2 / 2`.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def heat_kernel(x: Tensor, t: float, diffusion: float) -> Tensor:
    r"""What a point at 0 has become, :math:`e^{-x^2 / 4Dt} / \sqrt{4\pi D t}`, shaped like x."""
    _positive(t=t, diffusion=diffusion)
    return (-(x**2) / (4 * diffusion * t)).exp() / math.sqrt(4 * math.pi * diffusion * t)


def heat(density: Tensor, t: float, diffusion: float, length: float) -> Tensor:
    r"""The heat equation on a ring, exact in time: Fourier mode k decays by :math:`e^{-Dk^2 t}`.

    density: (..., S) at equally spaced points of a ring of that length.
    """
    _positive(diffusion=diffusion, length=length)
    size = density.shape[-1]
    k = 2 * math.pi * torch.fft.rfftfreq(size, length / size, dtype=density.dtype, device=density.device)
    return torch.fft.irfft(torch.fft.rfft(density) * (-diffusion * k**2 * t).exp(), n=size)


def fokker_planck(
    density: Tensor,
    x: Tensor,
    t: float,
    drift: Callable[[Tensor], Tensor],
    diffusion: Callable[[Tensor], Tensor],
) -> Tensor:
    """Density after a time t, (S,), between walls that nothing passes.

    density, x: at equally spaced points, (S,). drift: A(x). diffusion: B(x), positive.
    Mass is kept, nothing turns negative, and with constant B a stationary Gaussian stays as it is.

    Source: Scharfetter and Gummel (1969), IEEE Trans. Electron Devices 16, 64-77.
    """
    generator = fokker_planck_generator(x, drift, diffusion)
    if density.shape != x.shape:
        raise ValueError(f"density and x need one shape (S,); got {tuple(density.shape)}, {tuple(x.shape)}")
    return torch.linalg.matrix_exp(t * generator) @ density


def fokker_planck_generator(
    x: Tensor, drift: Callable[[Tensor], Tensor], diffusion: Callable[[Tensor], Tensor]
) -> Tensor:
    """The matrix G of dp / dt = G p on a grid, (S, S): rates of a walk between neighbours.

    Raises: ValueError when the grid is not evenly rising, or B not positive.
    """
    gaps = x.diff()
    if x.ndim != 1 or len(x) < 2 or not bool(torch.allclose(gaps, gaps[:1])) or not float(gaps[0]) > 0:
        raise ValueError("x must be a vector (S,) of evenly rising points")
    h, middle = float(gaps[0]), (x[1:] + x[:-1]) / 2  # (S - 1,)
    b = diffusion(middle)
    if not bool((b > 0).all()):
        raise ValueError("the diffusion must be positive everywhere")
    pull = drift(middle) - diffusion(x).diff() / h  # of the form d(B dp / dx) / dx
    peclet = pull * h / b
    right = b / h**2 * _bernoulli(-peclet)
    left = b / h**2 * _bernoulli(peclet)
    rates = torch.diag(right, -1) + torch.diag(left, 1)  # (S, S), to the row from the column
    return rates - torch.diag(rates.sum(0))


def _bernoulli(x: Tensor) -> Tensor:
    """The function x / (e^x - 1), 1 at 0."""
    small = x.abs() < 1e-6
    return torch.where(small, 1 - x / 2, x / torch.where(small, 1.0, x).expm1())


def _positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"{name} must be positive; got {number}")
