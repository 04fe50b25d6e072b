"""Convolutions between an image, laid out as one row, and a few features; and back."""

import math

from torch import Tensor, nn


class ConvolutionalEncoder(nn.Module):
    """Flat images (..., C H W) to features (..., out): each layer halves the sides and doubles the channels.

    shape: (C, H, W) of an image. hidden: channels of the first layer. layers: halvings.
    """

    def __init__(self, shape: tuple[int, int, int], out: int, hidden: int = 16, layers: int = 2):
        super().__init__()
        self.shape, sides = shape, _sides(shape, layers)
        blocks: list[nn.Module] = []
        for k, before in enumerate([shape[0], *(hidden * 2**k for k in range(layers - 1))]):
            blocks += [nn.Conv2d(before, hidden * 2**k, 3, stride=2, padding=1), nn.SiLU()]
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Linear(hidden * 2 ** (layers - 1) * math.prod(sides[-1]), out)

    def forward(self, x: Tensor) -> Tensor:
        image = x.reshape(-1, *self.shape)  # (N, C, H, W)
        features = self.last(self.blocks(image).flatten(1))
        return features.reshape(*x.shape[:-1], -1)


class ConvolutionalDecoder(nn.Module):
    """Features (..., in) to flat images (..., C H W): the encoder's shapes in the opposite order.

    Sides are doubled by nearest neighbours before each convolution, which leaves no chequered pattern.
    Source: Odena, Dumoulin and Olah (2016), Deconvolution and Checkerboard Artifacts.
    """

    def __init__(self, shape: tuple[int, int, int], inside: int, hidden: int = 16, layers: int = 2):
        super().__init__()
        sides, channels = _sides(shape, layers)[::-1], [hidden * 2**k for k in range(layers)][::-1]
        self.first, self.shape = nn.Linear(inside, channels[0] * math.prod(sides[0])), (channels[0], *sides[0])
        blocks: list[nn.Module] = []
        for k, side in enumerate(sides[1:]):
            after = channels[k + 1] if k + 1 < layers else shape[0]
            blocks += [nn.SiLU(), nn.Upsample(side), nn.Conv2d(channels[k], after, 3, padding=1)]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, z: Tensor) -> Tensor:
        image = self.first(z).reshape(-1, *self.shape)
        return self.blocks(image).reshape(*z.shape[:-1], -1)


def _sides(shape: tuple[int, int, int], layers: int) -> list[tuple[int, int]]:
    """Heights and widths, from the image's own down to the smallest."""
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"an image has a shape of (channels, height, width); got {shape}")
    if layers < 1 or min(shape[1:]) < 2 ** (layers - 1):
        raise ValueError(f"{layers} halvings do not fit into an image of {shape[1]} x {shape[2]}")
    sides = [(shape[1], shape[2])]
    for _ in range(layers):
        sides.append(((sides[-1][0] + 1) // 2, (sides[-1][1] + 1) // 2))
    return sides
