"""What training climbs, over blocks of words: losses with their derivatives by the scores, written out.

Shapes: hidden (n, B, d), targets (n, H) and positive (n, H, B), which of them each row predicts. A row is scored
against the columns of its block, (n, C, B), and against what all rows are scored against, the last S rows of the
output table, (n, B, S). The objective is a sum over pairs of minus `loss`.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ppmodels.embedding.tree import Tree


class Ways(NamedTuple):
    """What is known of columns that are nodes of a tree.

    target: of which of the block's targets a column is, (n, C); the last, which no row predicts, where it is of none.
    left: whether the way turns left there, (n, C). number: columns that are of a target, (n,): the first ones.
    """

    target: Tensor
    left: Tensor
    number: Tensor


class Columns(NamedTuple):
    """Rows of the output table that a block is scored against, (n, C)."""

    rows: Tensor
    ways: Ways | None = None

    def take(self, blocks: slice) -> "Columns":
        """Return those of some blocks, without what is empty in all of them."""
        if self.ways is None:
            return Columns(self.rows[blocks])
        number = self.ways.number[blocks]
        rows, target, left = (part[blocks][:, : int(number.max())] for part in (self.rows, *self.ways[:2]))
        return Columns(rows, Ways(target, left, number))


class Scores(NamedTuple):
    """Against the columns of a block, (n, C, B), and against the last rows of the table, (n, B, S)."""

    own: Tensor
    shared: Tensor


class Objective(Protocol):
    """A way to compare a word with others.

    block: words that share their columns. shared: S. inward: skip-gram as its authors' program reads it, where the
    neighbours predict the word in the middle (by symmetry the pairs are as many); the last target is then no word.
    """

    block: int
    shared: int
    inward: bool

    def share(self, words: Tensor) -> Tensor:
        """Return how often each row of the output table takes part, from how often each word does, (W,)."""
        ...

    def columns(self, targets: Tensor, generator: torch.Generator) -> Columns:
        """Return what rows that predict these targets are scored against."""
        ...

    def slope(self, scores: Scores, columns: Columns, targets: Tensor, positive: Tensor) -> Scores:
        """Return the objective's derivative by the scores; may overwrite them."""
        ...

    def loss(self, scores: Scores, columns: Columns, targets: Tensor, positive: Tensor) -> Tensor:
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
    shared: int = 0
    inward: bool = False

    def __post_init__(self) -> None:
        """Sum the noise up, for drawing."""
        self.cumulative = self.noise.cumsum(0).to(self.device)
        self.offset = (self.number * self.noise).log().float().to(self.device) if self.normalised else None

    def share(self, words: Tensor) -> Tensor:
        return (words + self.number * self.noise) / (1 + self.number)

    def columns(self, targets: Tensor, generator: torch.Generator) -> Columns:
        shape, device = (len(targets), self.drawn), targets.device
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64, device=device)
        drawn = torch.searchsorted(self.cumulative, uniform).clamp_(max=len(self.cumulative) - 1)
        return Columns(torch.cat([targets, drawn.to(targets.dtype)], -1))

    def slope(self, scores: Scores, columns: Columns, targets: Tensor, positive: Tensor) -> Scores:
        score, first = scores.own, targets.shape[1]
        if self.offset is not None:
            score -= self.offset[columns.rows][..., None]
        score.sigmoid_()
        score[:, :first].neg_().add_(1).mul_(positive)
        score[:, first:].mul_(self._weight(positive).neg_())
        return scores

    def loss(self, scores: Scores, columns: Columns, targets: Tensor, positive: Tensor) -> Tensor:
        score, first = scores.own, targets.shape[1]
        if self.offset is not None:
            score = score - self.offset[columns.rows][..., None]
        found = softplus(-score[:, :first]) * positive
        return found.sum() + (softplus(score[:, first:]) * self._weight(positive)).sum()

    def _weight(self, positive: Tensor) -> Tensor:
        """How many pairs' negatives each of those drawn stands for, (n, 1, B)."""
        return positive.sum(1, keepdim=True) * (self.number / self.drawn)


@dataclass
class Hierarchical:
    """Turns on the way from a tree's root to the target; the output table holds inner nodes.

    Nearly every way comes by the nodes that were made last, the heaviest: all rows are scored against these by one
    product. What is left of a way is short, and is a block's columns.
    """

    tree: Tree
    block: int = 8
    shared: int = 32
    inward: bool = True  # ways of the few words in the middle, not of all around them

    def __post_init__(self) -> None:
        """Split the words' ways in two: turns at heavy nodes, as a table, and the other nodes, in a row."""
        words, (path, turn) = len(self.tree.path), (self.tree.path, self.tree.turn)
        self.shared = min(self.shared, words - 1)
        light = words - 1 - self.shared  # nodes from here on are heavy
        heavy, there = (path >= light) & self.tree.on_path, self.tree.on_path & (path < light)
        visits = path.new_zeros(words, self.shared, dtype=torch.float32)
        left = visits.clone()
        word = heavy.nonzero()[:, 0]
        visits[word, path[heavy] - light] = 1
        left[word, path[heavy] - light] = 1 - turn[heavy]
        self.heavy = torch.cat([left, visits], -1)  # (W, 2 S)
        self.there, self.path, self.left = (_packed(part, there) for part in (there, path, 1 - turn))  # (W, L')

    def share(self, words: Tensor) -> Tensor:
        words = words.to(self.tree.path.device)
        taken = words[:, None] * self.tree.on_path  # (W, L)
        nodes = torch.zeros_like(words)
        return nodes.index_add_(0, self.tree.path.flatten(), taken.flatten())[:-1]

    def columns(self, targets: Tensor, generator: torch.Generator) -> Columns:
        n, words = len(targets), targets.shape[1] - 1
        targets = targets[:, :-1]
        there = self.there[targets].flatten(1)  # (n, (H - 1) L')
        place = there.cumsum(-1)
        width = int(place[:, -1].max()) if n else 0
        place = torch.where(there, place - 1, width)  # what is not there falls behind the last
        target = torch.arange(words, device=targets.device)[:, None].expand(n, words, self.there.shape[1])
        parts = (self.path[targets], 0), (target, words), (self.left[targets], 0)
        rows, target, left = (
            part.new_full((n, width + 1), empty).scatter_(-1, place, part.flatten(1))[:, :-1] for part, empty in parts
        )
        return Columns(rows, Ways(target, left, there.sum(-1)))

    def slope(self, scores: Scores, columns: Columns, targets: Tensor, positive: Tensor) -> Scores:
        (visits, turn), own = self._light(columns, positive), scores.own.sigmoid_()
        torch.sub(turn, own, out=own).mul_(visits)
        left, visits = self._heavy(targets, positive)
        return Scores(own, torch.addcmul(left, visits, scores.shared.sigmoid_(), value=-1))

    def loss(self, scores: Scores, columns: Columns, targets: Tensor, positive: Tensor) -> Tensor:
        visits, turn = self._light(columns, positive)
        left, heavy = self._heavy(targets, positive)
        shared = softplus(-scores.shared) * left + softplus(scores.shared) * (heavy - left)
        return (softplus((1 - 2 * turn) * scores.own) * visits).sum() + shared.sum()

    def _light(self, columns: Columns, positive: Tensor) -> tuple[Tensor, Tensor]:
        """Whether a row predicts the target that a column is of, (n, C, B), and turns left there, (n, C, 1)."""
        ways, (n, height, width) = cast(Ways, columns.ways), positive.shape
        first = torch.arange(0, n * height, height, device=positive.device)[:, None]
        visits = positive.view(-1, width).index_select(0, (ways.target + first).flatten())
        return visits.view(n, -1, width), ways.left[..., None]

    def _heavy(self, targets: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
        """How many of a row's targets turn left at each heavy node, and how many come by, (n, B, S) each."""
        ways = self.heavy.index_select(0, targets.flatten()).view(*targets.shape, -1).to(positive)  # (n, H, 2 S)
        left, visits = (positive.mT @ ways).chunk(2, -1)
        return left, visits


@dataclass
class Softmax:
    """The sum over all words itself; every row is scored against every word. For small vocabularies."""

    shared: int
    block: int = 32
    inward: bool = False

    def share(self, words: Tensor) -> Tensor:
        return words

    def columns(self, targets: Tensor, generator: torch.Generator) -> Columns:
        return Columns(targets[:, :0])

    def slope(self, scores: Scores, columns: Columns, targets: Tensor, positive: Tensor) -> Scores:
        expected = scores.shared.softmax(-1).mul_(-positive.sum(1)[..., None])
        chosen = positive.mT  # (n, B, H)
        return Scores(scores.own, expected.scatter_add_(-1, targets[:, None].expand_as(chosen), chosen))

    def loss(self, scores: Scores, columns: Columns, targets: Tensor, positive: Tensor) -> Tensor:
        chosen = positive.mT
        logs = scores.shared.log_softmax(-1).gather(-1, targets[:, None].expand_as(chosen))
        return -(logs * chosen).sum()


def _packed(values: Tensor, there: Tensor) -> Tensor:
    """Return what is there of each row at its front, (W, L'), as wide as the longest; 0 behind it."""
    order = (~there).int().argsort(dim=-1, stable=True)[:, : max(1, int(there.sum(-1).max()))]
    return (values * there).gather(-1, order)
