"""Where EM begins: principal components as the path, and a regression on themselves as its dynamics."""

import torch
from torch import Tensor

from ppmodels.population.linear_system import LinearSystem


def start(y: Tensor, latents: int, initial: str, spread: float = 0.3) -> LinearSystem:
    """Return a system to start from, for y (R, T, N); NaN is filled by the neuron's mean. Random by `spread`.

    Raises: ValueError when there are too few trials for V_0, which is then without bound.
    Source: Ghahramani and Hinton (1996), Parameter Estimation for Linear Dynamical Systems.
    """
    if initial == "free" and len(y) <= latents:
        raise ValueError(f"{len(y)} trials cannot tell V_0 of {latents} latents; say initial='innovation'")
    offset = y.nanmean((0, 1))
    centred = torch.where(y.isnan(), 0.0, y - offset)  # (R, T, N)
    flat = centred.flatten(0, 1)
    loading, variance = principal(flat, latents)
    size = loading.norm(dim=0).clamp_min(1e-6)
    loading = loading + spread * torch.randn_like(loading) * size / len(loading) ** 0.5
    path = centred @ torch.linalg.pinv(loading).mT  # (R, T, P)
    before, after = path[:, :-1].flatten(0, 1), path[:, 1:].flatten(0, 1)
    eye = torch.eye(latents, dtype=y.dtype, device=y.device)
    dynamics = torch.linalg.solve(before.mT @ before + 1e-3 * len(flat) * eye, before.mT @ after).mT
    values, vectors = torch.linalg.eig(dynamics)
    dynamics = (vectors * (values / (values.abs() / 0.95).clamp_min(1.0)) @ torch.linalg.inv(vectors)).real
    cov = path.flatten(0, 1).mT @ path.flatten(0, 1) / len(flat) + 1e-3 * eye
    steps = cov - dynamics @ cov @ dynamics.mT
    values, vectors = torch.linalg.eigh((steps + steps.mT) / 2)
    innovation = vectors * values.clamp_min(0.05 * float(cov.diagonal().mean())) @ vectors.mT
    noise = (variance - loading.square().sum(-1)).clamp_min(0.1 * variance.mean().clamp_min(1e-12))
    return LinearSystem(dynamics, innovation, path[:, 0].mean(0), cov, loading, offset, noise)


def principal(flat: Tensor, latents: int) -> tuple[Tensor, Tensor]:
    """Return loadings (N, P) of unit-variance components of centred rows (R, N), and the columns' variances."""
    cov = flat.mT @ flat / len(flat)
    values, vectors = torch.linalg.eigh(cov)
    values, vectors = values.flip(0)[:latents], vectors.flip(1)[:, :latents]
    rest = (cov.diagonal().sum() - values.sum()) / max(1, len(cov) - latents)
    floor = 1e-3 * cov.diagonal().mean().clamp_min(1e-12)
    return vectors * (values - rest).clamp_min(floor).sqrt(), cov.diagonal()
