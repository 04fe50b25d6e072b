"""Rows to start from, by k-means++, farthest points or at random, and who is nearest to which."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

Seeding = Literal["mixed", "k-means++", "farthest", "random"]

CHUNK = 2**18  # numbers of the largest temporary


def labels(x: Tensor, components: int, seeding: Seeding, weight: Tensor | None = None) -> Tensor:
    """Return for each row which of some far rows is the nearest, in sds of the columns, (N,).

    With random seeding any component, by lot: all then begin in the middle, and move apart; components that share a
    blob are found from there, which far rows seldom lead to. Mixed seeding is by k-means++ and by lot in turn.
    Raises: ValueError when x, (N, D), has fewer distinct rows than components.
    """
    if seeding == "random":
        return torch.randint(components, (len(x),), device=x.device)
    x = (x - x.mean(0)) / x.std(0)
    chosen = centres(x, components, seeding, weight)
    return torch.cat([torch.stack([_from(rows, c) for c in chosen]).argmin(0) for rows in _chunks(x)])


def centres(x: Tensor, components: int, seeding: Seeding, weight: Tensor | None = None) -> Tensor:
    """Return rows of x, (K, D), that lie far from one another; the first is drawn at random.

    Each further one is drawn with probability proportional to its squared distance to the nearest centre so
    far (k-means++), or is the row where that is largest (farthest). x: columns of comparable spread, (N, D).
    weight: how often each row counts, (N,).
    Raises: ValueError when fewer rows are distinct.
    Source: Arthur and Vassilvitskii (2007), k-means++; Gonzalez (1985), Theoretical Computer Science 38.
    """
    often = x.new_ones(len(x)) if weight is None else weight.to(x)
    chosen = [_draw(often)]
    nearest = _distance(x, x[chosen[0]]) * (often > 0)  # (N,)
    while len(chosen) < components:
        if not nearest.max() > 0:
            raise ValueError(f"x has only {len(chosen)} distinct rows; {components} components need {components}")
        chosen.append(int(nearest.argmax()) if seeding == "farthest" else _draw(nearest * often))
        nearest = nearest.minimum(_distance(x, x[chosen[-1]]))
    return x[chosen]


def _distance(x: Tensor, centre: Tensor) -> Tensor:
    """Squared distance of each row, (N,)."""
    return torch.cat([_from(rows, centre) for rows in _chunks(x)])


def _from(rows: Tensor, centre: Tensor) -> Tensor:
    """Squared distance of a chunk's rows, (n,); not by an expanded square, so that equal rows are at 0."""
    return (rows - centre).square_().sum(-1)


def _chunks(x: Tensor) -> Iterator[Tensor]:
    return iter(x.split(max(1, CHUNK // max(1, x.shape[1]))))


def _draw(weight: Tensor) -> int:
    """A position, by its weight; `torch.multinomial` stops at 2^24 of them."""
    total = weight.double().cumsum(0)
    at = torch.searchsorted(total, total[-1] * torch.rand((), dtype=total.dtype, device=total.device), right=True)
    return min(int(at), len(weight) - 1)
