"""Diffusion transformer: an image's patches look at one another, and each layer hears of time and class."""

import torch
from torch import Tensor, nn

from ppmodels.nn.attention import MultiHeadAttention
from ppmodels.nn.denoiser import TimeEmbedding, embed
from ppmodels.nn.vision import grid, patchify, unpatchify


class DiffusionTransformer(nn.Module):
    """Patches through blocks that time and label shift and scale, (B, C, H, W), (B,) -> (B, C, H, W), zero at first.

    shape: (C, H, W). patch: side of a patch. width, layers, heads: of the transformer. labels, time_scale: as in
    `MLPDenoiser`.

    Source: Peebles and Xie (2022), arXiv:2212.09748, section 3.2, adaLN-Zero.
    """

    position: Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        patch: int = 2,
        width: int = 64,
        layers: int = 4,
        heads: int = 4,
        labels: int = 0,
        time_scale: float = 1.0,
    ):
        super().__init__()
        self.shape, self.patch, self.null_label = shape, patch, labels
        features = patchify(torch.zeros(shape), patch).shape[-1]
        self.embedding = nn.Linear(features, width)
        self.register_buffer("position", grid(shape, patch, width), persistent=False)
        self.time = TimeEmbedding(width, time_scale)
        self.label = nn.Embedding(labels + 1, width) if labels else None
        self.blocks = nn.ModuleList(AdaptiveBlock(width, heads) for _ in range(layers))
        self.norm, self.told = nn.LayerNorm(width, elementwise_affine=False), silent(width, 2 * width)
        self.head = silent(width, features)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """x: (B, C, H, W). t: (B,). label: whole numbers (B,); `null_label`, or none given, means none of them.

        Raises: ValueError for images of another shape, and for labels that there are not.
        """
        if tuple(x.shape[1:]) != tuple(self.shape):
            raise ValueError(f"expected images of shape {tuple(self.shape)}; got {tuple(x.shape[1:])}")
        told = nn.functional.silu(embed(self.time, self.label, t, label))  # (B, W)
        h = self.embedding(patchify(x, self.patch)) + self.position  # (B, P, W)
        for block in self.blocks:
            h = block(h, told)
        shift, scale = self.told(told)[:, None].chunk(2, -1)
        return unpatchify(self.head(modulated(self.norm(h), shift, scale)), self.patch, self.shape)


class AdaptiveBlock(nn.Module):
    """Attention, and a network for each patch, both shifted, scaled and gated by what is told.

    (B, P, W), told (B, W) -> (B, P, W). Every gate starts at zero, so that the block starts as the identity.
    """

    def __init__(self, width: int, heads: int = 4):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = MultiHeadAttention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.told = silent(width, 6 * width)

    def forward(self, h: Tensor, told: Tensor) -> Tensor:
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.told(told)[:, None].chunk(6, -1)  # (B, 1, W)
        h = h + gate * self.attention(modulated(self.norm(h), shift, scale))
        return h + mlp_gate * self.mlp(modulated(self.norm(h), mlp_shift, mlp_scale))


def modulated(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Features moved and stretched; a scale of zero leaves them."""
    return h * (1 + scale) + shift


def silent(width: int, out: int) -> nn.Linear:
    """A linear layer that says nothing at first."""
    layer = nn.Linear(width, out)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
