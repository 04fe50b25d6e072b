"""Networks that look at a noisy vector and its time: sinusoidal time embedding, residual layers."""

import math

import torch
from torch import Tensor, nn


class TimeEmbedding(nn.Module):
    """Sines and cosines of a time, and two layers on top: (...) -> (..., width).

    scale: what a time is multiplied with first; 1 for steps 0..1000, 1000 for times in 0..1.

    Source: Vaswani et al. (2017), section 3.5; Ho, Jain and Abbeel (2020), appendix B.
    """

    frequency: Tensor

    def __init__(self, width: int, scale: float = 1.0, max_period: float = 10_000.0):
        super().__init__()
        if width < 2 or width % 2:
            raise ValueError(f"width must be even and positive; got {width}")
        steps = torch.arange(width // 2) / (width // 2)
        self.register_buffer("frequency", scale * (-math.log(max_period) * steps).exp(), persistent=False)
        self.layers = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def forward(self, t: Tensor) -> Tensor:
        phase = t[..., None].to(self.frequency.dtype) * self.frequency  # (..., width / 2)
        return self.layers(torch.cat([phase.sin(), phase.cos()], -1))


class MLPDenoiser(nn.Module):
    """Residual layers whose every one hears of the time: (..., dim), (...) -> (..., dim), zero at first.

    labels: number of classes that may be told besides, as whole numbers (...); 0 for none. The number
    `null_label` means none of them, and is what an omitted label becomes.
    time_scale: see `TimeEmbedding`.
    """

    def __init__(self, dim: int, hidden: int = 128, layers: int = 3, labels: int = 0, time_scale: float = 1.0):
        super().__init__()
        self.null_label = labels
        self.time = TimeEmbedding(2 * math.ceil(hidden / 2), time_scale)
        width = 2 * math.ceil(hidden / 2)
        self.label = nn.Embedding(labels + 1, width) if labels else None
        self.first = nn.Linear(dim, hidden)
        self.blocks = nn.ModuleList(_Block(hidden, width) for _ in range(layers))
        self.last = nn.Linear(hidden, dim)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        if x.shape[-1] != self.first.in_features:
            raise ValueError(f"x must be (..., {self.first.in_features}); got {tuple(x.shape)}")
        told = embed(self.time, self.label, t, label)
        h = self.first(x)  # (..., hidden)
        for block in self.blocks:
            h = block(h, told)
        return self.last(nn.functional.silu(h))


def embed(time: nn.Module, classes: nn.Embedding | None, t: Tensor, label: Tensor | None) -> Tensor:
    """What a network is told of time and label, (..., width); an omitted label is the last class.

    Raises: ValueError for a label that the network has no class for.
    """
    told = time(t)
    if classes is None:
        if label is not None:
            raise ValueError("this network was made without labels")
        return told
    null = classes.num_embeddings - 1
    if label is None:
        label = torch.full(t.shape, null, device=t.device)
    elif bool(((label < 0) | (label > null)).any()):
        raise ValueError(f"labels lie between 0 and {null}, which means none")
    return told + classes(label)


class _Block(nn.Module):
    """The layer h + W silu(V norm(h) (1 + scale) + shift), scale and shift from what is told."""

    def __init__(self, hidden: int, width: int):
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(hidden), nn.Linear(hidden, hidden)
        self.told = nn.Linear(width, 2 * hidden)
        self.outer = nn.Linear(hidden, hidden)

    def forward(self, h: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.told(nn.functional.silu(told)).chunk(2, -1)
        inner = self.inner(self.norm(h)) * (1 + scale) + shift
        return h + self.outer(nn.functional.silu(inner))
