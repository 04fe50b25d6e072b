# %% [markdown]
# # Which words of a manual belong together?
#
# The reference manual of the Python language comes with Python: some fifty thousand words. Vectors that are learned
# from nothing but which words stand near which know its exceptions from its numbers and its modules. Counting says
# nearly the same as predicting. `python examples/word_map.py FILE` takes any other text, a sentence a line.

# %%
import re
import sys
from pathlib import Path
from pydoc_data.topics import topics

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox
from rich.console import Console
from sklearn.manifold import TSNE

from ppmodels.embedding.ppmi import cooccurrence, ppmi_vectors
from ppmodels.embedding.text import TextFile
from ppmodels.embedding.vectors import WordVectors
from ppmodels.embedding.word2vec import Embedding, Word2Vec
from ppmodels.embedding.word2vec_format import write_word2vec

KINDS = {
    "numbers": ["integer", "float", "floating", "complex", "decimal", "precision", "imaginary", "real"],
    "exceptions": [
        "exception",
        "exceptions",
        "raise",
        "raised",
        "handler",
        "caught",
        "typeerror",
        "runtimeerror",
        "valueerror",
    ],
    "modules": ["module", "modules", "import", "imported", "package", "packages", "loader"],
    "containers": ["list", "tuple", "dictionary", "sequence", "set", "items", "key", "keys"],
    "classes": ["class", "classes", "instance", "instances", "metaclass", "base", "attribute"],
    "text": ["string", "strings", "characters", "character", "bytes", "unicode", "prefix", "suffix"],
}  # fmt: skip
SIDES = [
    ((6, 0), "left", "center"), ((-6, 0), "right", "center"), ((0, 6), "center", "bottom"), ((0, -6), "center", "top"),
    ((5, 5), "left", "bottom"), ((5, -5), "left", "top"), ((-5, 5), "right", "bottom"), ((-5, -5), "right", "top"),
]  # fmt: skip


def manual() -> list[list[str]]:
    """Return the manual's sentences, each once; topics share paragraphs."""
    parts = (part for topic in topics.values() for part in re.split(r"\n\s*\n|\.\s", topic))
    return [list(words) for words in dict.fromkeys(tuple(re.findall("[a-z]+", part.lower())) for part in parts)]


def draw_map(folder: Path, spaces: dict[str, WordVectors], kinds: dict[str, list[str]]) -> None:
    """These words on a plane, near ones near (t-SNE by cosine), each kind in its colour."""
    figure, cells = plt.subplots(1, 2, figsize=(14, 7), layout="constrained")
    labels: dict[Axes, list[tuple[str, tuple[float, float], str]]] = {}
    for cell, (name, vectors) in zip(cells, spaces.items(), strict=True):
        words = [(word, kind) for kind, members in kinds.items() for word in members if word in vectors.index]
        unit = torch.stack([vectors.unit[vectors.index[word]] for word, _ in words])
        place = TSNE(perplexity=8, metric="cosine", init="random", random_state=3).fit_transform(unit.numpy())
        for number, kind in enumerate(kinds):
            cell.scatter(*place[[own == kind for _, own in words]].T, s=14, color=f"C{number}", label=kind)
        cell.set(title=name, xticks=[], yticks=[])
        cell.margins(x=0.14)
        colors = {kind: f"C{number}" for number, kind in enumerate(kinds)}
        labels[cell] = [(word, tuple(xy), colors[kind]) for (word, kind), xy in zip(words, place, strict=True)]
    figure.legend(*cells[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(kinds), fontsize=9)
    figure.draw_without_rendering()  # now it is known where the points are
    for cell, words in labels.items():
        write_words(cell, words)
    figure.savefig(folder / "word_map.png", dpi=120)
    plt.close(figure)


def write_words(cell: Axes, words: list[tuple[str, tuple[float, float], str]]) -> None:
    """Each word beside its point, on the side where it covers least, the right one if it may choose."""
    spots = [cell.transData.transform(place) for _, place, _ in words]
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in spots]
    for word, place, color in words:
        texts = [
            cell.annotate(word, place, step, textcoords="offset points", ha=ha, va=va, color=color, fontsize=9)
            for step, ha, va in SIDES
        ]
        boxes = [text.get_window_extent() for text in texts]
        covered = [box.count_overlaps(taken) + 9 * (box.x1 > cell.bbox.x1 or box.x0 < cell.bbox.x0) for box in boxes]
        best = covered.index(min(covered))
        taken.append(boxes[best])
        for text in texts[:best] + texts[best + 1 :]:
            text.remove()


def draw_loss(folder: Path, found: Embedding) -> None:
    """How the loss of a pair fell."""
    figure, cell = plt.subplots(figsize=(5, 3.2), layout="constrained")
    cell.plot(range(1, len(found.losses) + 1), found.losses)
    cell.set(xlabel="part of the text, through all epochs", ylabel="loss of a pair, nats")
    figure.savefig(folder / "loss.png", dpi=130)
    plt.close(figure)


def main(text: str | None = None, folder: str | Path = "runs/word_map", epochs: int = 30) -> WordVectors:
    """Learn, draw the map, write the vectors, and print neighbours; return the vectors."""
    folder, console = Path(folder), Console()
    folder.mkdir(parents=True, exist_ok=True)
    sentences = manual() if text is None else TextFile(text, pattern="[a-z]+", lower=True)
    found = Word2Vec(dim=60, min_count=8).fit(sentences, epochs=epochs, seed=1, progress_bar=True)
    counted = ppmi_vectors(cooccurrence(sentences, found.vocabulary), found.vocabulary, dim=60)
    kinds = KINDS if text is None else {"most frequent": list(found.vocabulary.words[20:70])}
    spaces = {"predicting: skip-gram": found.vectors, "counting: mutual information": counted}
    draw_map(folder, spaces, kinds)
    draw_loss(folder, found)
    path = write_word2vec(found.vectors, folder / "vectors.txt")
    for word in [members[0] for members in kinds.values()]:
        for name, vectors in spaces.items():
            near = ", ".join(other for other, _ in vectors.neighbours(word, 6))
            console.print(f"{word:>12}, {name.partition(':')[0]:10}: {near}")
    console.print(f"{len(found.vocabulary)} vectors are in {path}, pictures beside it.")
    return found.vectors


# %%
if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
