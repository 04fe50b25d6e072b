"""Words with vectors: neighbours by angle, analogies, and scores against what people say."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor


class Agreement(NamedTuple):
    """value: a rank correlation, or the share that is right. used: how many lines; left_out: had unknown words."""

    value: float
    used: int
    left_out: int


@dataclass(frozen=True, eq=False)
class WordVectors:
    """W words and a vector each, (W, d)."""

    words: tuple[str, ...]
    vectors: Tensor

    def __post_init__(self) -> None:
        """Check that each word has one vector."""
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.words):
            raise ValueError(f"{len(self.words)} words need as many vectors; they are {tuple(self.vectors.shape)}")

    @cached_property
    def index(self) -> dict[str, int]:
        """Each word's place."""
        return {word: i for i, word in enumerate(self.words)}

    @cached_property
    def unit(self) -> Tensor:
        """The vectors at length 1, (W, d); 0 stays 0."""
        return torch.nn.functional.normalize(self.vectors, dim=-1)

    def __getitem__(self, word: str) -> Tensor:
        """Return a word's vector, (d,).

        Raises: KeyError when there is no such word.
        """
        return self.vectors[self._place(word)]

    def similarity(self, first: str, second: str) -> float:
        """Return the cosine of the angle between two words."""
        return float(self.unit[self._place(first)] @ self.unit[self._place(second)])

    def neighbours(self, word: str | Tensor, number: int = 10) -> list[tuple[str, float]]:
        """Return the words at the least angles, and the cosines; to a word, which is left out, or a vector (d,)."""
        if isinstance(word, str):
            return self.analogy([word], [], number)
        return self._nearest(torch.nn.functional.normalize(word.to(self.unit), dim=-1), [], number)

    def analogy(
        self,
        positive: Sequence[str],
        negative: Sequence[str],
        number: int = 10,
        by: Literal["add", "multiply"] = "add",
    ) -> list[tuple[str, float]]:
        r"""Return the words nearest to a sum, `analogy(["king", "woman"], ["man"])`, without those that were given.

        .. math:: \cos(w, \textstyle\sum_p p - \sum_n n), \quad\text{or}\quad
            \prod_p s(w, p) / \big(\prod_n s(w, n) + \epsilon\big), \; s = (1 + \cos) / 2

        Source: Mikolov et al. (2013), arXiv:1301.3781; Levy and Goldberg (2014), CoNLL, for the product.
        """
        plus, minus = [self._place(w) for w in positive], [self._place(w) for w in negative]
        if by == "add":
            query = self.unit[plus].sum(0) - self.unit[minus].sum(0)
            return self._nearest(torch.nn.functional.normalize(query, dim=-1), plus + minus, number)
        if by != "multiply":
            raise ValueError(f"by must be add or multiply; it is {by!r}")
        near = (1 + self.unit @ self.unit[plus + minus].mT) / 2  # (W, P)
        score = near[:, : len(plus)].prod(-1) / (near[:, len(plus) :].prod(-1) + 1e-3)
        return self._best(score, plus + minus, number)

    def agree_on_pairs(self, judged: Iterable[tuple[str, str, float]]) -> Agreement:
        """Return Spearman's correlation of cosines with people's judgements of (word, word, how alike)."""
        lines = list(judged)
        known = [(a, b, score) for a, b, score in lines if a in self.index and b in self.index]
        if len(known) < 3:
            raise ValueError(f"only {len(known)} of {len(lines)} pairs are of words that are known; 3 are needed")
        ours = rankdata([self.similarity(a, b) for a, b, _ in known])
        theirs = rankdata([score for *_, score in known])
        return Agreement(float(np.corrcoef(ours, theirs)[0, 1]), len(known), len(lines) - len(known))

    def agree_on_analogies(self, questions: Iterable[Sequence[str]], among: int = 30_000) -> Agreement:
        """Return the share of (a, b, c, d) in which d is nearest to b - a + c, of the `among` first words."""
        lines, unit = [tuple(q) for q in questions], self.unit[:among]
        known = [[self.index[w] for w in q] for q in lines if all(self.index.get(w, among) < len(unit) for w in q)]
        if not known:
            raise ValueError(f"none of {len(lines)} analogies is of words that are known")
        right = 0
        for part in torch.tensor(known).split(512):
            a, b, c, d = part.unbind(-1)
            score = (unit[b] - unit[a] + unit[c]) @ unit.mT  # (n, W)
            score.scatter_(1, part[:, :3], -torch.inf)
            right += int((score.argmax(-1) == d).sum())
        return Agreement(right / len(known), len(known), len(lines) - len(known))

    def _nearest(self, query: Tensor, without: list[int], number: int) -> list[tuple[str, float]]:
        return self._best(self.unit @ query, without, number)

    def _best(self, score: Tensor, without: list[int], number: int) -> list[tuple[str, float]]:
        score = score.clone()
        score[without] = -torch.inf
        value, place = score.topk(min(number, len(score) - len(set(without))))
        return [(self.words[i], v) for i, v in zip(place.tolist(), value.tolist(), strict=True)]

    def _place(self, word: str) -> int:
        if word not in self.index:
            raise KeyError(f"{word!r} is not among the {len(self.words)} words that have vectors")
        return self.index[word]
