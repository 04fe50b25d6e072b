"""Word vectors beside gensim's C loops: words a second, and agreement with people, on the same text."""

import bz2
import re
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from gensim.corpora.wikicorpus import extract_pages, filter_wiki
from gensim.models import Word2Vec as Gensim
from gensim.test.utils import datapath

from benchmarks._clock import timed
from benchmarks._mcmc import clock
from benchmarks._record import recorded
from ppmodels.embedding.text import TextFile
from ppmodels.embedding.vectors import WordVectors
from ppmodels.embedding.vocabulary import Vocabulary
from ppmodels.embedding.word2vec import Word2Vec
from ppmodels.embedding.word2vec_format import from_gensim

WIKIPEDIA = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"  # comes with gensim
KINDS = {
    "skip-gram, negative": {},
    "cbow, negative": {"architecture": "cbow"},
    "skip-gram, tree": {"loss": "hierarchical"},
}
THEIRS: dict[str, dict[str, Any]] = {
    "skip-gram, negative": {"sg": 1},
    "cbow, negative": {"sg": 0, "alpha": 0.1},  # at 0.025, its default, it scores a third of this
    "skip-gram, tree": {"sg": 1, "hs": 1, "negative": 0},
}


def compare(kind: tuple[str, ...] = (), epochs: int = 10, runs: int = 3, out: Path | None = None) -> None:
    """Print the tables; 100 dimensions, window 5, 5 negatives, processor seconds of one thread, medians.

    Args:
        kind: parts of the names of what is trained; none means all, and "cores" two processes beside one.
        epochs: over the text.
        runs: of which the median is printed.
        out: a file for the tables as text.
    """
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder, recorded(out, "torch", "gensim"):
        path = Path(folder) / "wikipedia.txt"
        words = prepare(path) * epochs
        sentences, text = [line.split() for line in path.read_text().splitlines()], TextFile(path)
        vocabulary = Vocabulary.count(text)
        print(f"{words // epochs} words of Wikipedia, {len(vocabulary)} different, {epochs} epochs, after counting")
        chosen = [each for each in KINDS if not kind or any(part in each for part in kind)]
        if chosen:
            scores = " ".join(f"{name:>15}" for name in ("WordSim-353", "SimLex-999", "analogies"))
            print(f"{'':22} {'thousand words / CPU s':>24} {'':>6} {scores}")
            print(f"{'':22} {'ours':>12} {'gensim':>11} {'ratio':>6} " + f"{'ours':>8} {'gensim':>6} " * 3)
        for each in chosen:
            ours, theirs = [], []
            for seed in range(runs):
                theirs.append(gensim(sentences, epochs, seed, THEIRS[each]))
                seconds, found = timed(lambda seed=seed, each=each: fit(text, epochs, seed, vocabulary, KINDS[each]))
                ours.append((found, seconds))
            report(each, words, ours, theirs)
        if not kind or "cores" in kind:
            wall(text, sentences, epochs, vocabulary, words)


def fit(text: TextFile, epochs: int, seed: int, vocabulary: Vocabulary, fields: dict, workers: int = 1) -> WordVectors:
    """Ours, reading the file included."""
    return Word2Vec(**fields).fit(text, epochs=epochs, seed=seed, vocabulary=vocabulary, workers=workers).vectors


def gensim(sentences: list, epochs: int, seed: int, fields: dict) -> tuple[WordVectors, float]:
    """Theirs, from lists in memory, and processor seconds; its counting is not timed."""
    model = counted(sentences, seed, fields)
    seconds, _ = timed(lambda: model.train(sentences, total_examples=model.corpus_count, epochs=epochs))
    return from_gensim(model), seconds


def counted(sentences: list, seed: int, fields: dict, workers: int = 1) -> Gensim:
    """Their model with its vocabulary, not trained."""
    model = Gensim(vector_size=100, window=5, min_count=5, seed=seed + 1, workers=workers, **fields)
    model.build_vocab(sentences)
    return model


def report(kind: str, words: int, ours: list, theirs: list) -> None:
    """One line of the table."""
    rate = [median([words / 1e3 / seconds for _, seconds in side]) for side in (ours, theirs)]
    scores = [[median(column) for column in zip(*[judge(v) for v, _ in side], strict=True)] for side in (ours, theirs)]
    cells = " ".join(f"{a:>8.3f} {b:>6.3f}" for a, b in zip(*scores, strict=True))
    print(f"{kind:22} {rate[0]:>12.0f} {rate[1]:>11.0f} {rate[0] / rate[1]:>6.2f} {cells}")


def judge(vectors: WordVectors) -> tuple[float, float, float]:
    """Agreement with WordSim-353, SimLex-999 and the analogies that come with word2vec."""
    pairs = []
    for name, skipped in (("wordsim353.tsv", "#"), ("simlex999.txt", "#")):
        lines = [
            line.lower().split("\t") for line in Path(datapath(name)).read_text().splitlines() if line[0] != skipped
        ]
        pairs.append(vectors.agree_on_pairs((a, b, float(score)) for a, b, score in lines).value)
    questions = [line.lower().split() for line in Path(datapath("questions-words.txt")).read_text().splitlines()]
    return *pairs, vectors.agree_on_analogies(q for q in questions if len(q) == 4).value


def wall(text: TextFile, sentences: list, epochs: int, vocabulary: Vocabulary, words: int) -> None:
    """All cores: thousand words a second by the clock on the wall, and by that of all processes, skip-gram."""
    print("\nskip-gram, processes started before: thousand words / s on the wall, and / processor s of all processes")
    print(f"{'workers':>8} {'ours':>12} {'gensim':>12}")
    for workers in (1, 2):
        model = counted(sentences, 0, THEIRS["skip-gram, negative"], workers)
        fit(text, 1, 0, vocabulary, {}, workers)
        cells = []
        for run in (
            lambda: fit(text, epochs, 0, vocabulary, {}, workers),  # noqa: B023
            lambda: model.train(sentences, total_examples=model.corpus_count, epochs=epochs),  # noqa: B023
        ):
            with clock.timed() as seconds:
                run()
            cells.append(f"{words / seconds.wall / 1e3:.0f}, {words / seconds.cpu / 1e3:.0f}")
        print(f"{workers:>8} {cells[0]:>12} {cells[1]:>12}", flush=True)


def prepare(path: Path) -> int:
    """Write the text, a paragraph a line; return how many words it has."""
    words = 0
    with bz2.open(datapath(WIKIPEDIA)) as pages, open(path, "w") as file:
        for _, text, _ in extract_pages(pages):
            for line in filter_wiki(text).splitlines():
                found = re.findall("[a-z]+", line.lower())
                if len(found) > 2:
                    file.write(" ".join(found) + "\n")
                    words += len(found)
    return words
