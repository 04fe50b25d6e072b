"""Vision transformer: an image as a sentence of patches, and pre-training by hiding most of them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ppmodels.nn.position import sinusoidal
from ppmodels.nn.transformer import Encoder


def patchify(images: Tensor, size: int) -> Tensor:
    """(B, C, H, W) to (B, P, C size size): patches row by row.

    Raises: ValueError when the image does not divide into patches.
    """
    height, width = images.shape[-2:]
    if height % size or width % size:
        raise ValueError(f"an image of {height} x {width} does not divide into patches of {size} x {size}")
    grid = images.unflatten(-1, (width // size, size)).unflatten(-3, (height // size, size))
    return grid.movedim((-5, -3), (-3, -2)).flatten(-5, -4).flatten(-3)  # (B, P, C size size)


def unpatchify(patches: Tensor, size: int, shape: tuple[int, int, int]) -> Tensor:
    """The inverse of `patchify`; shape: (C, H, W)."""
    channels, height, width = shape
    grid = patches.unflatten(-1, (channels, size, size)).unflatten(-4, (height // size, width // size))
    return grid.movedim((-3, -2), (-5, -3)).flatten(-4, -3).flatten(-2)


def grid(shape: tuple[int, int, int], patch: int, width: int) -> Tensor:
    """Where each patch lies, (P, W): sines of its row, then of its column.

    Raises: ValueError when the width is not a multiple of four.
    """
    if width % 4:
        raise ValueError(f"rows and columns, sines and cosines: the width must be a multiple of 4; got {width}")
    rows, columns = (sinusoidal(torch.arange(side // patch), width // 2) for side in shape[1:])
    both = torch.cat([rows[:, None].expand(-1, len(columns), -1), columns.expand(len(rows), -1, -1)], -1)
    return both.flatten(0, 1).to(torch.get_default_dtype())


class VisionTransformer(nn.Module):
    """Images (B, C, H, W) to logits (B, K), from a token that reads all patches.

    shape: (C, H, W). patch: side of a patch. classes: K. width, layers, options: of `Encoder`.
    Source: Dosovitskiy et al. (2020), arXiv:2010.11929, section 3.1.
    """

    position: Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        patch: int,
        classes: int,
        width: int = 64,
        layers: int = 4,
        **options: Any,
    ):
        super().__init__()
        self.shape, self.patch = shape, patch
        features = patchify(torch.zeros(shape), patch).shape[-1]
        self.embedding = nn.Linear(features, width)
        self.register_buffer("position", grid(shape, patch, width), persistent=False)
        self.summary = nn.Parameter(0.02 * torch.randn(width))
        self.encoder = Encoder(width, layers, **options)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, K)."""
        return self.head(self.features(images)[:, 0])

    def features(self, images: Tensor, kept: Tensor | None = None) -> Tensor:
        """The summary token and the patches, (B, 1 + P, W). kept: only these patches, (B, V)."""
        if tuple(images.shape[1:]) != tuple(self.shape):
            raise ValueError(f"expected images of shape {tuple(self.shape)}; got {tuple(images.shape[1:])}")
        x = self.embedding(patchify(images, self.patch)) + self.position  # (B, P, W)
        x = x if kept is None else take(x, kept)
        return self.encoder(torch.cat([self.summary.expand(len(x), 1, -1), x], 1))


class MaskedAutoencoder(nn.Module):
    """Fill in an image of which most patches are hidden; what is kept afterwards is `encoder`.

    encoder: sees the kept patches only, and so costs little. hidden: the share that is hidden.
    width, layers, heads: of the small decoder.
    Source: He et al. (2021), arXiv:2111.06377, section 3.
    """

    position: Tensor

    def __init__(
        self,
        encoder: VisionTransformer,
        hidden: float = 0.75,
        width: int = 32,
        layers: int = 1,
        heads: int = 4,
    ):
        super().__init__()
        if not 0 < hidden < 1:
            raise ValueError(f"the hidden share must lie between 0 and 1; got {hidden}")
        count, features = patchify(torch.zeros(encoder.shape), encoder.patch).shape
        self.encoder, self.count = encoder, count
        self.kept = max(1, round(count * (1 - hidden)))
        self.embedding = nn.Linear(encoder.head.in_features, width)
        self.blank = nn.Parameter(0.02 * torch.randn(width))
        self.register_buffer("position", grid(encoder.shape, encoder.patch, width), persistent=False)
        self.decoder = Encoder(width, layers, heads=heads)
        self.head = nn.Linear(width, features)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Reconstructed patches (B, P, C size size), and which of them were hidden, (B, P)."""
        order = shuffled(len(images), self.count, images.device, generator)
        kept, rest = order[:, : self.kept], order[:, self.kept :]
        seen = self.embedding(self.encoder.features(images, kept)[:, 1:])  # (B, V, W)
        blanks = self.blank.expand(*rest.shape, -1)
        x = take(torch.cat([seen, blanks], 1), order.argsort(-1))  # back in their places
        mask = torch.ones_like(order, dtype=torch.bool).scatter(1, kept, False)
        return self.head(self.decoder(x + self.position)), mask

    def loss(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Mean squared error of the hidden patches' values."""
        patches, mask = self(images, generator)
        return functional.mse_loss(patches[mask], patchify(images, self.encoder.patch)[mask])


def take(x: Tensor, index: Tensor) -> Tensor:
    """Tokens of each row by their numbers: x (B, T, W), index (B, V) -> (B, V, W)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def shuffled(rows: int, count: int, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """A permutation of the numbers below count for every row, (rows, count)."""
    return torch.rand(rows, count, device=device, generator=generator).argsort(-1)
