"""word2vec: vectors that predict a word's neighbours (skip-gram), or a word from them (CBOW)."""

import math
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args

import torch
from torch import Tensor

from ppmodels.embedding._layer import identity
from ppmodels.embedding._objective import Hierarchical, Objective, Sampled, Softmax
from ppmodels.embedding._plan import LOAD, Plan
from ppmodels.embedding._run import run
from ppmodels.embedding.tokens import loads, write
from ppmodels.embedding.tree import huffman
from ppmodels.embedding.vectors import WordVectors
from ppmodels.embedding.vocabulary import Sentences, Vocabulary

Architecture = Literal["skip-gram", "cbow"]
Loss = Literal["negative", "nce", "hierarchical", "softmax"]
Layer = Literal["linear", "tanh"]


@dataclass(frozen=True)
class Embedding:
    """What was learned: v of each word as a centre, u of each as a context (or of a tree's inner nodes).

    input: v (W, d). output: u (W, d) or (W - 1, d). losses: a pair's mean loss, sampled along the way.
    layer: W (d, d) and b of h = tanh(m W + b), (d + 1, d), where there is one.
    """

    vocabulary: Vocabulary
    input: Tensor
    output: Tensor
    losses: Tensor
    layer: Tensor | None = None

    @property
    def vectors(self) -> WordVectors:
        """The words with their vectors v, to be asked for neighbours and analogies."""
        return WordVectors(self.vocabulary.words, self.input)


@dataclass(frozen=True)
class Word2Vec:
    r"""The log-bilinear model of a word by its neighbours, or of the neighbours by the word.

    .. math:: \tfrac1T \sum_t \sum_{0 < |j| \le c} \log p(w_{t+j} \mid w_t),
        \qquad p(o \mid i) \propto \exp u_o^\top v_i

    and with `cbow` log p(w_t | m), m the mean of v over the window: u'm scores a word, or by `layer="tanh"` u'h, where
    :math:`h = \tanh(W^\top m + b)`. A window's reach is uniform on 1 to c, when `dynamic`.

    dim: d. window: c. loss: how p's sum over all words is avoided, or not. negatives: K a pair, drawn in proportion
    to count^noise_power. sample: t of the subsampling of frequent words, 0 for none. min_count, max_words: which
    words are learned.
    Source: Mikolov et al. (2013), arXiv:1301.3781 and arXiv:1310.4546; Bengio et al. (2003), JMLR 3, the layer.
    """

    dim: int = 100
    window: int = 5
    architecture: Architecture = "skip-gram"
    loss: Loss = "negative"
    layer: Layer = "linear"
    negatives: int = 5
    noise_power: float = 0.75
    sample: float = 1e-3
    dynamic: bool = True
    min_count: int = 5
    max_words: int | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        for name in ("dim", "window", "negatives", "min_count"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; it is {getattr(self, name)}")
        for name, kinds in (("architecture", Architecture), ("loss", Loss), ("layer", Layer)):
            if getattr(self, name) not in get_args(kinds):
                raise ValueError(f"{name} must be one of {', '.join(get_args(kinds))}; it is {getattr(self, name)!r}")
        if self.layer != "linear" and self.architecture != "cbow":
            raise ValueError("a layer stands behind the mean of a context; take the architecture cbow")
        if not 0 <= self.sample < math.inf:
            raise ValueError(f"sample must be from 0 up and finite; it is {self.sample}")

    def fit(
        self,
        text: Sentences,
        *,
        epochs: int = 5,
        lr: float | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        workers: int = 1,
        vocabulary: Vocabulary | None = None,
        progress_bar: bool = False,
        checkpoint: str | Path | None = None,
        device: str = "cpu",
    ) -> Embedding:
        """Learn from sentences, lists of words; from a `TextFile` of any size, of which no more than a load is held.

        lr: falls to 0 in a straight line, from 0.025, or 0.2 for CBOW, whose mean divides every step. batch_size:
            words between two updates, 256 or 384 unless said; more are faster, until they spoil the result. workers:
            processes that share the vectors without waiting for one another, -1 for one a core; only with one is the
            result the same every time. checkpoint: a file from which the same call goes on where it was interrupted.

        Raises: ValueError when no word or no pair is left, or the checkpoint is of another call; ArithmeticError
            when the vectors grow out of all bounds.
        """
        if device != "cpu" and workers != 1:
            raise ValueError(f"one process drives {device}; workers must be 1, not {workers}")
        vocabulary = vocabulary or Vocabulary.count(text, self.min_count, self.max_words, workers)
        lr = {"skip-gram": 0.025, "cbow": 0.2}[self.architecture] if lr is None else lr
        usual = {"skip-gram": 256, "cbow": 384}[self.architecture]
        batch_size = usual if batch_size is None else batch_size
        with TemporaryDirectory() as folder:
            parts = loads(write(text, vocabulary, Path(folder), workers), LOAD)
            plan = Plan(
                parts, self._objective(vocabulary, device), self.architecture == "cbow", self.window, self.dynamic,
                vocabulary.keep_probability(self.sample), epochs, lr, batch_size, seed, device, self.layer == "tanh",
            )  # fmt: skip
            plan.damp(vocabulary.counts)
            size = f"{int(vocabulary.counts.sum())} of {len(vocabulary)} words"
            told = f"{self}, {size}, {epochs=}, {lr=}, {batch_size=}, {seed=}"
            start = self._start(vocabulary, seed)
            v, u, losses = run(plan, *start, told, workers, progress_bar, checkpoint)
        words = len(vocabulary)
        return Embedding(vocabulary, v[:words], u, losses, None if self.layer == "linear" else v[words:])

    def _start(self, vocabulary: Vocabulary, seed: int) -> tuple[Tensor, Tensor]:
        """Small random v, a layer behind them, and u of 0: every word is at first as likely as any other."""
        words, generator = len(vocabulary), torch.Generator().manual_seed(seed)
        rows = words - 1 if self.loss == "hierarchical" else words
        v = (torch.rand(words, self.dim, generator=generator) - 0.5) / self.dim
        return v if self.layer == "linear" else torch.cat([v, identity(self.dim)]), torch.zeros(rows, self.dim)

    def _objective(self, vocabulary: Vocabulary, device: str) -> Objective:
        if len(vocabulary) < 2:
            raise ValueError(
                f"the vocabulary is the one word {vocabulary.words[0]!r}, which has no other to stand near"
            )
        if self.loss == "softmax":
            return Softmax(len(vocabulary))
        if self.loss == "hierarchical":
            return Hierarchical(huffman(vocabulary.counts).to(device))
        return Sampled(vocabulary.noise(self.noise_power), self.loss == "nce", self.negatives, device)
