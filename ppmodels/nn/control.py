"""ControlNet: a side branch that steers a frozen U-Net by a picture, and says nothing at first."""

import copy

from torch import Tensor, nn

from ppmodels.nn.unet import Features, UNet


class ControlNet(nn.Module):
    """A U-Net, frozen, and a trainable copy of its way down that adds to its bridges: an image as condition.

    Every connection starts as a convolution of zeros, so before training the output is the base's own.
    Input:  x (B, C, H, W), t (B,), hint (B, G, H, W). Output: (B, C, H, W).

    hint_channels: G. The base's weights no longer take gradients; the copy's do.

    Source: Zhang, Rao and Agrawala (2023), arXiv:2302.05543, section 3.
    """

    def __init__(self, base: UNet, hint_channels: int):
        super().__init__()
        self.branch = copy.deepcopy(base.down)
        self.branch.requires_grad_(True)
        self.base = base.requires_grad_(False)
        width = base.down.width
        self.hint = nn.Sequential(nn.Conv2d(hint_channels, width, 3, padding=1), nn.SiLU(), zero_conv(width))
        sizes = [size for level in range(len(base.down.multiples)) for size in base.down.widths(level)]
        self.bridges = nn.ModuleList(zero_conv(size) for size in sizes)
        self.middle = zero_conv(sizes[-1])

    def forward(self, x: Tensor, t: Tensor, hint: Tensor, label: Tensor | None = None) -> Tensor:
        if hint.shape[0] != x.shape[0] or hint.shape[2:] != x.shape[2:]:
            raise ValueError(f"a hint must have the size of the image; got {tuple(hint.shape)}, {tuple(x.shape)}")
        found = self.branch(x, self.base.told(x, t, label), self.hint(hint))
        bridges = [connect(bridge) for connect, bridge in zip(self.bridges, found.bridges, strict=True)]
        return self.base(x, t, label, Features(bridges, self.middle(found.middle)))


def zero_conv(channels: int) -> nn.Conv2d:
    """A 1x1 convolution that starts at zero: its weights learn at once, what is behind it a step later."""
    layer = nn.Conv2d(channels, channels, 1)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
