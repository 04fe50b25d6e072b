"""The file format of word2vec, as text and binary, and gensim's `KeyedVectors`."""

import bz2
import gzip
import os
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch

from ppmodels.embedding.vectors import WordVectors

OPEN = {".gz": gzip.open, ".bz2": bz2.open}


def write_word2vec(vectors: WordVectors, path: str | Path, binary: bool = False) -> Path:
    """Write words and vectors, after a line with their number and dimension; `.gz` and `.bz2` are compressed.

    Raises: ValueError for a word with white space in it; nothing is written then.
    """
    bad = next((word for word in vectors.words if not word or word.split() != [word]), None)
    if bad is not None:
        raise ValueError(f"the word {bad!r} has white space, which ends a word in this format")
    path, table = Path(path), vectors.vectors.detach().cpu().float().numpy()
    beside = path.with_name(f".part-{path.name}")
    with cast(BinaryIO, OPEN.get(path.suffix, open)(beside, "wb")) as file:
        file.write(f"{len(table)} {table.shape[1]}\n".encode())
        for word, row in zip(vectors.words, table, strict=True):
            values = row.astype("<f4").tobytes() if binary else " ".join(map(repr, row.tolist())).encode()
            file.write(word.encode() + b" " + values + b"\n")
    os.replace(beside, path)
    return path


def read_word2vec(
    path: str | Path, binary: bool = False, limit: int | None = None, errors: str = "strict"
) -> WordVectors:
    """Read words and vectors, of which the first `limit`.

    errors: for words that are not utf-8, `strict`, `replace` or `ignore`.
    Raises: ValueError with the line or the word where the file is not of this format.
    """
    with cast(BinaryIO, OPEN.get(Path(path).suffix, open)(path, "rb")) as file:
        header = file.readline(100).split()
        if len(header) != 2 or not all(part.isdigit() for part in header):
            raise ValueError(f"{path}, line 1: there should be two numbers, of words and of dimensions")
        number, dim = map(int, header)
        number = number if limit is None else min(number, limit)
        words, table = [], np.empty((number, dim), np.float32)
        for row in range(number):
            word, table[row] = (_binary if binary else _text)(file, dim, path, row)
            words.append(_decoded(word, path, row, errors))
    return WordVectors(tuple(words), torch.from_numpy(table))


def to_gensim(vectors: WordVectors) -> Any:
    """Return a `gensim.models.KeyedVectors` with these words."""
    from gensim.models import KeyedVectors  # an extra  # pyright: ignore[reportMissingImports]

    keyed = KeyedVectors(vectors.vectors.shape[1])
    keyed.add_vectors(list(vectors.words), vectors.vectors.detach().cpu().numpy())
    return keyed


def from_gensim(keyed: Any) -> WordVectors:
    """Return the words of a `gensim.models.KeyedVectors`, or of a model's `wv`."""
    keyed = getattr(keyed, "wv", keyed)
    return WordVectors(tuple(keyed.index_to_key), torch.from_numpy(np.array(keyed.vectors)))


def _text(file: BinaryIO, dim: int, path: str | Path, row: int) -> tuple[bytes, np.ndarray]:
    parts = file.readline().rstrip(b" \r\n").split(b" ")
    if len(parts) != dim + 1:
        raise ValueError(
            f"{path}, line {row + 2}: there should be a word and {dim} numbers; there are {len(parts)} parts"
        )
    try:
        return parts[0], np.array(parts[1:], np.float32)
    except ValueError:
        raise ValueError(f"{path}, line {row + 2}: not all after the word are numbers") from None


def _binary(file: BinaryIO, dim: int, path: str | Path, row: int) -> tuple[bytes, np.ndarray]:
    word = bytearray()
    while (byte := file.read(1)) not in (b" ", b""):
        word += byte
    values = file.read(4 * dim)
    if len(values) < 4 * dim:
        raise ValueError(f"{path} ends within word {row + 1}; was it written as binary, and whole?")
    return bytes(word).lstrip(b"\n"), np.frombuffer(values, "<f4")


def _decoded(word: bytes, path: str | Path, row: int, errors: str) -> str:
    try:
        return word.decode("utf-8", errors)
    except UnicodeDecodeError:
        raise ValueError(f"{path}, word {row + 1}: {word!r} is not utf-8; give errors='replace'") from None
