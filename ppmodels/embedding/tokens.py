"""A text as numbers on disk: written once, mapped into memory, read by any process."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

from ppmodels.embedding.vocabulary import Sentences, Vocabulary, split

END = -1  # after each sentence
HELD = 2**20  # numbers held before they are written


@dataclass(frozen=True)
class Load:
    """Numbers `start` to `stop` of a file."""

    path: Path
    start: int
    stop: int

    def read(self) -> np.ndarray:
        """Return them, (n,) int32."""
        return np.memmap(self.path, np.int32, "r", 4 * self.start, (self.stop - self.start,))


def write(text: Sentences, vocabulary: Vocabulary, folder: Path, workers: int = 1) -> list[Path]:
    """Write each word's place in the vocabulary and -1 at a sentence's end; words not in it are left out.

    Returns: files of int32, in the order of the text.
    Raises: ValueError when no sentence holds two words that are known.
    """
    parts = split(text, workers)
    paths = [folder / f"tokens_{i}.int32" for i in range(len(parts))]
    work = (delayed(_write)(part, vocabulary.index, path) for part, path in zip(parts, paths, strict=True))
    longest = Parallel(n_jobs=workers if len(parts) > 1 else 1)(work)
    if max(longest) < 2:  # type: ignore[type-var]
        raise ValueError("no sentence has two words of the vocabulary, so no word stands near another")
    return [path for path in paths if path.stat().st_size]


def loads(paths: Sequence[Path], size: int) -> list[Load]:
    """Return all of the files in loads of up to so many numbers."""
    found = []
    for path in paths:
        length = path.stat().st_size // 4
        found += [Load(path, start, min(start + size, length)) for start in range(0, length, size)]
    return found


def _write(text: Sentences, index: dict[str, int], path: Path) -> int:
    """Return the length of the longest sentence."""
    held: list[int] = []
    longest = 0
    with open(path, "wb") as file:
        for sentence in text:
            known = [index[word] for word in sentence if word in index]
            longest = max(longest, len(known))
            if len(known) > 1:
                held += known
                held.append(END)
            if len(held) > HELD:
                np.array(held, np.int32).tofile(file)
                held.clear()
        np.array(held, np.int32).tofile(file)
    return longest
