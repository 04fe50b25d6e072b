"""U-Net: down to coarse features and up again, with bridges between equal sizes."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ppmodels.nn.denoiser import TimeEmbedding, embed


class Features(NamedTuple):
    """What the way down found: bridges from fine to coarse, and the middle, each (B, C, H, W)."""

    bridges: list[Tensor]
    middle: Tensor


class UNet(nn.Module):
    """Residual convolutions at several sizes, (B, C, H, W), (B,) -> (B, C, H, W), zero at first.

    channels: C of the image. width: features at full size; multiples: of it, one a size, each half the last.
    blocks: a size. attention: self-attention at the coarsest size. labels, time_scale: as in `MLPDenoiser`.

    Source: Ho, Jain and Abbeel (2020), appendix B; Dhariwal and Nichol (2021), section 3.
    """

    def __init__(
        self,
        channels: int = 1,
        width: int = 32,
        multiples: tuple[int, ...] = (1, 2),
        blocks: int = 1,
        attention: bool = True,
        labels: int = 0,
        time_scale: float = 1.0,
    ):
        super().__init__()
        if width % 8 or not multiples:
            raise ValueError(f"width must be a multiple of 8, with one size at least; got {width}, {multiples}")
        self.channels, self.null_label = channels, labels
        self.factor = 2 ** (len(multiples) - 1)
        self.time = TimeEmbedding(2 * width, time_scale)
        self.label = nn.Embedding(labels + 1, 2 * width) if labels else None
        self.down = Encoder(channels, width, multiples, blocks, attention)
        self.up = nn.ModuleList()
        coarse = width * multiples[-1]
        for level in reversed(range(len(multiples))):
            fine = width * multiples[level]
            for bridge in reversed(self.down.widths(level)):
                self.up.append(ResidualBlock(coarse + bridge, fine, 2 * width))
                coarse = fine
            if level:
                self.up.append(_Upsample(fine))
        self.last = nn.Sequential(nn.GroupNorm(8, coarse), nn.SiLU(), nn.Conv2d(coarse, channels, 3, padding=1))
        for parameter in self.last[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None, control: Features | None = None) -> Tensor:
        """control: what a side branch adds to bridges and middle."""
        told = self.told(x, t, label)
        bridges, h = self.down(x, told)
        if control is not None:
            bridges = [own + added for own, added in zip(bridges, control.bridges, strict=True)]
            h = h + control.middle
        for layer in self.up:
            upward = isinstance(layer, _Upsample)
            h = layer(h) if upward else layer(torch.cat([h, bridges.pop()], 1), told)
        return self.last(h)

    def told(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """What every block hears of time and label, (B, 2 width).

        Raises: ValueError when an image has other channels or does not halve evenly.
        """
        if x.ndim != 4 or x.shape[1] != self.channels or x.shape[2] % self.factor or x.shape[3] % self.factor:
            wanted = f"(B, {self.channels}, H, W), H and W multiples of {self.factor}"
            raise ValueError(f"images must be {wanted}; got {tuple(x.shape)}")
        return embed(self.time, self.label, t, label)


class Encoder(nn.Module):
    """The way down and the middle: (B, C, H, W), (B, E) -> Features."""

    def __init__(self, channels: int, width: int, multiples: tuple[int, ...], blocks: int, attention: bool):
        super().__init__()
        self.width, self.multiples, self.blocks = width, multiples, blocks
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.layers = nn.ModuleList()
        now = width
        for level, multiple in enumerate(multiples):
            for _ in range(blocks):
                self.layers.append(ResidualBlock(now, width * multiple, 2 * width))
                now = width * multiple
            if level < len(multiples) - 1:
                self.layers.append(nn.Conv2d(now, now, 3, stride=2, padding=1))
        self.middle_in = ResidualBlock(now, now, 2 * width)
        self.attention = SelfAttention2d(now) if attention else nn.Identity()
        self.middle_out = ResidualBlock(now, now, 2 * width)

    def forward(self, x: Tensor, told: Tensor, added: Tensor | None = None) -> Features:
        """added: to the first features, (B, width, H, W)."""
        h = self.first(x)
        h = h if added is None else h + added
        bridges = [h]
        for layer in self.layers:
            h = layer(h, told) if isinstance(layer, ResidualBlock) else layer(h)
            bridges.append(h)
        middle = self.middle_out(self.attention(self.middle_in(h, told)), told)
        return Features(bridges, middle)

    def widths(self, level: int) -> list[int]:
        """Channels of the bridges of one size, in the order of the way down."""
        before = self.width * (self.multiples[level - 1] if level else 1)
        return [before, *[self.width * self.multiples[level]] * self.blocks]


class ResidualBlock(nn.Module):
    """Two convolutions around what is told, beside a short cut: (B, C, H, W), (B, E) -> (B, C', H, W)."""

    def __init__(self, channels: int, out: int, told: int):
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1))
        self.told = nn.Sequential(nn.SiLU(), nn.Linear(told, 2 * out))
        self.norm, self.second = nn.GroupNorm(8, out), nn.Conv2d(out, out, 3, padding=1)
        self.short_cut = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.told(told)[:, :, None, None].chunk(2, 1)
        h = self.norm(self.first(x)) * (1 + scale) + shift
        return self.short_cut(x) + self.second(nn.functional.silu(h))


class SelfAttention2d(nn.Module):
    """Every place looks at every other, added to the input: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, heads: int = 4):
        super().__init__()
        self.heads, self.norm = heads, nn.GroupNorm(8, channels)
        self.into, self.out = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        rows, channels, height, width = x.shape
        split = self.into(self.norm(x)).reshape(rows, 3, self.heads, channels // self.heads, height * width)
        query, key, value = split.transpose(-1, -2).unbind(1)  # (B, heads, places, C / heads)
        seen = nn.functional.scaled_dot_product_attention(query, key, value)
        return x + self.out(seen.transpose(-1, -2).reshape(x.shape))


class _Upsample(nn.Module):
    """Twice the size: (B, C, H, W) -> (B, C, 2 H, 2 W)."""

    def __init__(self, channels: int):
        super().__init__()
        self.smooth = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.smooth(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))
