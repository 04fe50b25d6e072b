"""Which words there are, how often, and what follows from that alone: subsampling and noise."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from joblib import Parallel, cpu_count, delayed
from torch import Tensor

from ppmodels.embedding.text import TextFile

Sentences = Iterable[Sequence[str]]


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Words from the most to the least frequent, and their counts (W,)."""

    words: tuple[str, ...]
    counts: Tensor

    @classmethod
    def count(cls, text: Sentences, min_count: int = 5, max_words: int | None = None, workers: int = 1) -> "Vocabulary":
        """Return the words that occur at least `min_count` times, at most `max_words` of them; ties by alphabet.

        workers: processes that read a `TextFile`, -1 for one a core.
        Raises: ValueError when no word is left.
        """
        parts = split(text, workers)
        read = Parallel(n_jobs=workers if len(parts) > 1 else 1)(delayed(_count)(part) for part in parts)
        counter: Counter[str] = Counter()
        for part in read:
            counter.update(part)
        kept = sorted((word for word, n in counter.items() if n >= min_count), key=lambda w: (-counter[w], w))
        if not kept:
            raise ValueError(
                f"no word occurs {min_count} times or more among {counter.total()} words, {len(counter)} of them "
                f"different; use a smaller min_count or more text"
            )
        kept = kept[:max_words]
        return cls(tuple(kept), torch.tensor([counter[word] for word in kept]))

    def __len__(self) -> int:
        """How many words."""
        return len(self.words)

    @cached_property
    def index(self) -> dict[str, int]:
        """Each word's place."""
        return {word: i for i, word in enumerate(self.words)}

    def keep_probability(self, sample: float, rule: Literal["paper", "word2vec.c"] = "word2vec.c") -> Tensor:
        r"""Return with which probability an occurrence of each word stays, (W,).

        .. math:: \sqrt{t / f}, \quad\text{or in the authors' program}\quad (\sqrt{f / t} + 1)\, t / f

        with f a word's share of all, and t = sample; 0 keeps all.

        Source: Mikolov et al. (2013), arXiv:1310.4546, equation 5.
        """
        if sample <= 0:
            return torch.ones(len(self), dtype=torch.float64)
        ratio = self.counts.double() / self.counts.sum() / sample
        return (ratio.rsqrt() if rule == "paper" else (ratio.sqrt() + 1) / ratio).clamp(max=1)

    def noise(self, power: float = 0.75) -> Tensor:
        """Return the distribution of negatives, proportional to count^power, (W,)."""
        weight = self.counts.double() ** power
        return weight / weight.sum()


def split(text: Sentences, workers: int) -> list[Sentences]:
    """Return the text in parts for so many processes; only a file can be read in parts."""
    number = cpu_count() if workers < 0 else workers
    if number > 1 and isinstance(text, TextFile):
        return list(text.parts(4 * number))
    if iter(text) is text:
        raise ValueError("the text is read more than once; give a list, a TextFile, or an object that starts anew")
    return [text]


def _count(text: Sentences) -> Counter[str]:
    counter: Counter[str] = Counter()
    for sentence in text:
        if isinstance(sentence, str):
            raise ValueError(f"a sentence is a list of words; got the string {sentence[:30]!r}")
        counter.update(sentence)
    return counter
