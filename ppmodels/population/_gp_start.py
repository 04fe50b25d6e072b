"""Where EM of Gaussian-process factor analysis begins: principal components, and timescales around a guess."""

import torch
from torch import Tensor

from ppmodels.base import Theta
from ppmodels.population._system_start import principal


def start(y: Tensor, latents: int, timescale: float, spread: float = 0.3) -> Theta:
    """Return sites to start from, for y (R, T, N); NaN is filled by the neuron's mean. Random by `spread`."""
    offset = y.nanmean((0, 1))
    loading, variance = principal(torch.where(y.isnan(), 0.0, y - offset).flatten(0, 1), latents)
    noise = (variance - loading.square().sum(-1)).clamp_min(0.1 * variance.mean().clamp_min(1e-12))
    turn = torch.linalg.qr(torch.randn(latents, latents, dtype=y.dtype, device=y.device))[0]  # which is not known
    around = torch.linspace(-1, 1, latents, dtype=y.dtype, device=y.device) if latents > 1 else y.new_zeros(1)
    around = around + spread * torch.randn_like(around)
    return {"timescale": timescale * around.exp(), "loading": loading @ turn, "offset": offset, "noise": noise.sqrt()}
