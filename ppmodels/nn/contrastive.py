"""Contrastive learning of two views: a picture and its caption are each other's nearest neighbours."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def clip_loss(left: Tensor, right: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    r"""Symmetric InfoNCE: row i of the one belongs to row i of the other.

    .. math:: -\frac{1}{2B} \sum_i \log \frac{e^{s\,l_i \cdot r_i}}{\sum_j e^{s\,l_i \cdot r_j}}
              + \log \frac{e^{s\,l_i \cdot r_i}}{\sum_j e^{s\,l_j \cdot r_i}}

    left, right: (B, D), of any length: they are normalised here. scale: s, the inverse temperature.
    Returns: (), log B when all look alike.
    Source: Radford et al. (2021), arXiv:2103.00020, figure 3.
    """
    logits = scale * likeness(left, right)  # (B, B)
    own = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.mT, own)) / 2


def likeness(left: Tensor, right: Tensor) -> Tensor:
    """Cosines of all pairs, (L, R)."""
    return functional.normalize(left, dim=-1) @ functional.normalize(right, dim=-1).mT


class CLIP(nn.Module):
    """Two encoders into one space.

    left, right: modules (B, ...) -> (B, their width). left_width, right_width: those. width: of the space.
    """

    def __init__(self, left: nn.Module, right: nn.Module, left_width: int, right_width: int, width: int = 64):
        super().__init__()
        self.left, self.right = left, right
        self.left_map = nn.Linear(left_width, width, bias=False)
        self.right_map = nn.Linear(right_width, width, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """The loss of B pairs, ()."""
        return clip_loss(self.left_map(self.left(left)), self.right_map(self.right(right)), self.scale)

    @property
    def scale(self) -> Tensor:
        """Inverse temperature, at most 100: beyond it training is unstable."""
        return self.log_scale.clamp(max=math.log(100)).exp()

    def zero_shot(self, left: Tensor, captions: Tensor) -> Tensor:
        """Probability of each caption (K, ...) for each row of the other view (B, ...), (B, K).

        A caption a class makes this a classifier that has seen no label.
        """
        cosines = likeness(self.left_map(self.left(left)), self.right_map(self.right(captions)))
        return (self.scale * cosines).softmax(-1)
