"""Text files of any size as streams of sentences, whole or in parts."""

import bz2
import gzip
import lzma
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, cast

LONGEST = 2**20  # bytes of a sentence; a longer line is cut between words
OPEN = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


@dataclass(frozen=True)
class TextFile:
    r"""A file with a sentence a line, words apart by white space; `.gz`, `.bz2` and `.xz` are read as they are.

    pattern: what counts as a word, such as `[a-z']+`; by default all between white space. lower: in lower case.
    encoding: one in which white space is that of ASCII. errors: for bytes that are not of the encoding, `strict`,
    `replace` or `ignore`. start, stop: only these bytes.

    Raises: ValueError for an encoding like UTF-16, and, when read, for a byte that cannot be decoded.
    """

    path: str | Path
    pattern: str = ""
    lower: bool = False
    encoding: str = "utf-8"
    errors: str = "strict"
    start: int = 0
    stop: int | None = None

    def __post_init__(self) -> None:
        """Check that lines can be found among the bytes."""
        if " \n".encode(self.encoding) != b" \n":
            raise ValueError(f"{self.encoding} cannot be read line by line; convert {self.path} to utf-8")

    def __iter__(self) -> Iterator[list[str]]:
        """Yield each sentence that has words."""
        for at, line in self._lines():
            words = self._words(line, at)
            if words:
                yield words

    def parts(self, number: int) -> list["TextFile"]:
        """Return up to so many parts that together hold every word once; a compressed file is one part."""
        if self.start or self.stop is not None or Path(self.path).suffix in OPEN:
            return [self]
        size = Path(self.path).stat().st_size
        with open(self.path, "rb") as file:
            cuts = sorted({0, size, *(_between_words(file, size * i // number, size) for i in range(1, number))})
        return [replace(self, start=a, stop=b) for a, b in pairwise(cuts)] or [self]

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Each line with the place of its first byte; no more than one line is held in memory."""
        with cast(BinaryIO, OPEN.get(Path(self.path).suffix, open)(self.path, "rb")) as file:
            file.seek(self.start)
            at, rest = self.start, b""
            while self.stop is None or at + len(rest) < self.stop:
                here = at + len(rest)
                size = LONGEST if self.stop is None else min(LONGEST, self.stop - here)
                piece = file.readline(size)
                line = rest + piece
                ended = not piece or piece.endswith(b"\n") or len(piece) < LONGEST
                cut = len(line) if ended else line.rfind(b" ") + 1
                if cut:
                    yield at, line[:cut]
                at, rest = at + cut, line[cut:]
                if not piece:
                    return
            if rest:
                yield at, rest

    def _words(self, line: bytes, at: int) -> list[str]:
        try:
            text = line.decode(self.encoding, self.errors)
        except UnicodeDecodeError as error:
            place = at + error.start
            raise ValueError(
                f"{self.path}, line {self._line_number(place)}: byte {place} is 0x{line[error.start]:02x}, not "
                f"{self.encoding}; name the right encoding, or errors='replace'"
            ) from None
        text = text.lower() if self.lower else text
        return re.findall(self.pattern, text) if self.pattern else text.split()

    def _line_number(self, place: int) -> int:
        number, at = 1, 0
        with cast(BinaryIO, OPEN.get(Path(self.path).suffix, open)(self.path, "rb")) as file:
            while at < place and (piece := file.read(min(LONGEST, place - at))):
                number, at = number + piece.count(b"\n"), at + len(piece)
        return number


def _between_words(file: BinaryIO, place: int, size: int) -> int:
    """The first byte after the next line's end, or after the next blank where lines are long."""
    file.seek(place)
    piece = file.read(LONGEST)
    for mark in (b"\n", b" "):
        if mark in piece:
            return place + piece.index(mark) + 1
    return size
