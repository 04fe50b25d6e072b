"""How far apart two samples are."""

import torch
from torch import Tensor


def sliced_wasserstein(
    x: Tensor, y: Tensor, projections: int = 128, generator: torch.Generator | None = None
) -> Tensor:
    r"""Sliced Wasserstein-2 distance of two samples (N, D) of one size, ().

    .. math:: \Bigl(E_u\, W_2^2(u^\top x, u^\top y)\Bigr)^{1/2}, \quad u \text{ uniform on the sphere}

    Raises: ValueError when the shapes differ.
    Source: Bonneel et al. (2015), J. Math. Imaging and Vision 51, 22-45.
    """
    if x.shape != y.shape or x.ndim != 2:
        raise ValueError(f"two samples of one shape (N, D) are needed; got {tuple(x.shape)}, {tuple(y.shape)}")
    directions = torch.randn(projections, x.shape[1], generator=generator, dtype=x.dtype, device=x.device)
    directions = directions / directions.norm(dim=-1, keepdim=True)  # (P, D)
    along_x, along_y = ((directions @ a.T).sort(-1).values for a in (x, y))  # (P, N)
    return (along_x - along_y).square().mean().sqrt()
