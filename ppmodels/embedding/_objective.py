"""What training climbs, over blocks of words: losses with their derivatives by the scores, written out.

Shapes: hidden (n, B, d), targets (n, H) and positive (n, B, H), which of them each row predicts; the columns that
a row is scored against are (n, C), the targets first. The objective is a sum over pairs of minus `loss`.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ppmodels.embedding.tree import Tree


class Objective(Protocol):
    """A way to compare a word with others."""

    block: int

    def share(self, words: Tensor) -> Tensor:
        """Return how often each row of the output table takes part, from how often each word does, (W,)."""
        ...

    def columns(self, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Return rows of the output table, (n, C)."""
        ...

    def slope(self, score: Tensor, columns: Tensor, targets: Tensor, positive: Tensor) -> Tensor:
        """Return the objective's derivative by the scores (n, B, C); may overwrite them."""
        ...

    def loss(self, score: Tensor, columns: Tensor, targets: Tensor, positive: Tensor) -> Tensor:
        """Return the sum over pairs, ()."""
        ...


@dataclass
class Sampled:
    """Negative sampling, or noise-contrastive estimation. A block of rows shares its negatives.

    noise: q (W,). normalised: the second. number: negatives a pair;
    drawn: a block. Each of the drawn counts number / drawn, so the objective is that of the papers.
    Source for the sharing: Ji et al. (2016), arXiv:1604.04661.
    """

    noise: Tensor
    normalised: bool
    number: int
    device: str = "cpu"
    drawn: int = 16
    block: int = 16

    def __post_init__(self) -> None:
        """Sum the noise up, for drawing."""
        self.cumulative = self.noise.cumsum(0).to(self.device)
        self.offset = (self.number * self.noise).log().float().to(self.device) if self.normalised else None

    def share(self, words: Tensor) -> Tensor:
        return (words + self.number * self.noise) / (1 + self.number)

    def columns(self, targets: Tensor, generator: torch.Generator) -> Tensor:
        shape, device = (len(targets), self.drawn), targets.device
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64, device=device)
        drawn = torch.searchsorted(self.cumulative, uniform).clamp_(max=len(self.cumulative) - 1)
        return torch.cat([targets, drawn.to(targets.dtype)], -1)

    def slope(self, score: Tensor, columns: Tensor, targets: Tensor, positive: Tensor) -> Tensor:
        first = targets.shape[1]
        if self.offset is not None:
            score -= self.offset[columns][:, None]
        score.sigmoid_()
        score[..., :first].neg_().add_(1).mul_(positive)
        score[..., first:].mul_(self._weight(positive).neg_())
        return score

    def loss(self, score: Tensor, columns: Tensor, targets: Tensor, positive: Tensor) -> Tensor:
        if self.offset is not None:
            score = score - self.offset[columns][:, None]
        first = targets.shape[1]
        found = softplus(-score[..., :first]) * positive
        return found.sum() + (softplus(score[..., first:]) * self._weight(positive)).sum()

    def _weight(self, positive: Tensor) -> Tensor:
        """How many pairs' negatives each of those drawn stands for, (n, B, 1)."""
        return positive.sum(-1, keepdim=True) * (self.number / self.drawn)


@dataclass
class Hierarchical:
    """Turns on the way from a tree's root to the target; the output table holds inner nodes.

    A block's columns are the nodes on the way to any of its targets, each once: near the root ways are shared.
    """

    tree: Tree
    block: int = 16

    def __post_init__(self) -> None:
        """Keep, of every word, the inner nodes on its way, and which of them it turns left at and comes by."""
        visits = self.tree.on_path.to(self.tree.turn)
        self.turns = torch.stack([visits * (1 - self.tree.turn), visits], 1)  # (W, 2, L)
        self.nodes = self.tree.path.clamp(max=len(self.tree.path) - 2).int()  # the root where a way has ended

    def share(self, words: Tensor) -> Tensor:
        words = words.to(self.tree.path.device)
        taken = words[:, None] * self.tree.on_path  # (W, L)
        nodes = torch.zeros_like(words)
        return nodes.index_add_(0, self.tree.path.flatten(), taken.flatten())[:-1]

    def columns(self, targets: Tensor, generator: torch.Generator) -> Tensor:
        nodes = self.nodes[targets].flatten(1).sort(-1).values  # (n, H L)
        first = nodes[:, 1:] != nodes[:, :-1]
        place = torch.nn.functional.pad(first.cumsum(-1), (1, 0))
        root = len(self.tree.path) - 2  # the last of every row, and what fills up rows with fewer nodes
        return nodes.new_full((len(nodes), int(place.max()) + 1), root).scatter_(-1, place, nodes).long()

    def slope(self, score: Tensor, columns: Tensor, targets: Tensor, positive: Tensor) -> Tensor:
        left, visits = self._turns(columns, targets, positive)
        return torch.addcmul(left, visits, score.sigmoid_(), value=-1)

    def loss(self, score: Tensor, columns: Tensor, targets: Tensor, positive: Tensor) -> Tensor:
        left, visits = self._turns(columns, targets, positive)
        return (softplus(-score) * left + softplus(score) * (visits - left)).sum()

    def _turns(self, columns: Tensor, targets: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
        """How many of a row's targets turn left at each column, and how many come by, (n, B, C) each."""
        place = torch.searchsorted(columns.int(), self.nodes[targets].flatten(1)).view(*targets.shape, 1, -1)
        turns = self.turns[targets].to(positive)  # (n, H, 2, L)
        ways = positive.new_zeros(*targets.shape, 2, columns.shape[1])  # (n, H, 2, C)
        ways.scatter_add_(-1, place.expand_as(turns), turns)
        left, visits = (positive @ ways.flatten(2)).chunk(2, -1)
        return left, visits


@dataclass
class Softmax:
    """The sum over all words itself; every word is a column. For small vocabularies."""

    words: int
    block: int = 32

    def share(self, words: Tensor) -> Tensor:
        return words

    def columns(self, targets: Tensor, generator: torch.Generator) -> Tensor:
        return torch.arange(self.words, device=targets.device).expand(len(targets), -1)

    def slope(self, score: Tensor, columns: Tensor, targets: Tensor, positive: Tensor) -> Tensor:
        expected = score.softmax(-1).mul_(-positive.sum(-1, keepdim=True))
        return expected.scatter_add_(-1, targets[:, None].expand_as(positive), positive)

    def loss(self, score: Tensor, columns: Tensor, targets: Tensor, positive: Tensor) -> Tensor:
        logs = score.log_softmax(-1).gather(-1, targets[:, None].expand_as(positive))
        return -(logs * positive).sum()
