"""Centres to start from: k-means++ and farthest points."""

from typing import Literal

import torch
from torch import Tensor

Seeding = Literal["k-means++", "farthest"]


SHARED = 0.1  # of every row, given to all components alike, so that none starts on a single row


def memberships(x: Tensor, components: int, seeding: Seeding) -> Tensor:
    """Return a share of each row for each component, (N, K): most of it for the nearest of some far rows.

    Raises: ValueError when x, (N, D), has fewer distinct rows than components.
    """
    x = (x - x.mean(0)) / x.std(0)
    nearest = _nearest(x, centres(x, components, seeding))
    return (1 - SHARED) * nearest + SHARED / components


def centres(x: Tensor, components: int, seeding: Seeding) -> Tensor:
    """Return rows of x that lie far from one another, (K, D); the first is drawn at random.

    Each further one is drawn with probability proportional to its squared distance to the nearest centre so
    far (k-means++), or is the row where that is largest (farthest). x: columns of comparable spread, (N, D).
    Raises: ValueError when fewer rows are distinct.
    Source: Arthur and Vassilvitskii (2007), k-means++; Gonzalez (1985), Theoretical Computer Science 38.
    """
    chosen = [int(torch.randint(len(x), (), device="cpu"))]
    nearest = (x - x[chosen[0]]).square().sum(-1)  # (N,)
    while len(chosen) < components:
        if not nearest.max() > 0:
            raise ValueError(f"x has only {len(chosen)} distinct rows; {components} components need {components}")
        chosen.append(_draw(nearest) if seeding == "k-means++" else int(nearest.argmax()))
        nearest = nearest.minimum((x - x[chosen[-1]]).square().sum(-1))
    return x[chosen]


def _nearest(x: Tensor, centre: Tensor) -> Tensor:
    """Return one-hot membership of the nearest centre, (N, K)."""
    distance = torch.stack([(x - c).square().sum(-1) for c in centre], -1)  # (N, K)
    return torch.nn.functional.one_hot(distance.argmin(-1), len(centre)).to(x)


def _draw(weight: Tensor) -> int:
    """A position, by its weight; `torch.multinomial` stops at 2^24 of them."""
    total = weight.double().cumsum(0)
    at = torch.searchsorted(total, total[-1] * torch.rand((), dtype=total.dtype, device=total.device), right=True)
    return min(int(at), len(weight) - 1)
