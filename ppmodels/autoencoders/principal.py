"""What linear autoencoders are held against: principal components, and the best linear denoiser."""

import torch
from torch import Tensor


def principal_components(x: Tensor, latents: int) -> tuple[Tensor, Tensor]:
    """Return the leading axes of rows x about their mean, (latents, D), and all eigenvalues of the scatter / N, (D,).

    The least mean squared error of any linear code of this size is the sum of the other eigenvalues.
    """
    if not 1 <= latents <= x.shape[1]:
        raise ValueError(f"latents must be between 1 and {x.shape[1]}; it is {latents}")
    values, vectors = torch.linalg.eigh(x.mT.cov(correction=0).reshape(x.shape[1], x.shape[1]))
    return vectors.flip(1)[:, :latents].mT, values.flip(0).clamp(min=0)


def principal_angles(one: Tensor, other: Tensor) -> Tensor:
    """Return the angles between the spaces that the rows of (K, D) and (L, D) span, radians, falling, (min(K, L),).

    Through sines where they are small, which cosines cannot resolve.

    Source: Knyazev and Argentati (2002), algorithm 3.1.
    """
    a, b = (torch.linalg.qr(rows.mT).Q for rows in (one, other))
    if a.shape[1] < b.shape[1]:
        a, b = b, a
    overlap = a.mT @ b
    sines = torch.linalg.svdvals(b - a @ overlap).clamp(max=1)
    cosines = torch.linalg.svdvals(overlap).flip(0).clamp(max=1)
    return torch.where(sines < 0.7, sines.asin(), cosines.acos())


def linear_denoiser(covariance: Tensor, noise: float) -> Tensor:
    r"""Return the best linear map from x + noise eps to x, for centred x of this covariance, (D, D).

    .. math:: R = C (C + \sigma^2 I)^{-1}

    of eigenvalues s^2 / (s^2 + sigma^2). For Gaussian x, (R y - y) / sigma^2 is the score of y.
    """
    eye = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    return torch.linalg.solve(covariance + noise**2 * eye, covariance).mT
