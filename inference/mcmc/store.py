"""Draws as they come: chunk by chunk, in memory or in a folder that survives a crash."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inference.density import Density

Turn = tuple[Tensor, dict[str, Tensor]]  # x (C, dim) and statistics (C,); of a chunk, (C, n, dim) and (C, n)


@dataclass
class Store:
    """Chunks of draws, x (C, n, dim) each, with statistics (C, n): in memory, or where there is a folder, there alone.

    made: turns in all chunks together.
    """

    folder: Path | None = None
    chunks: int = 0
    made: int = 0
    _held: list[Turn] = field(default_factory=list, repr=False)

    def add(self, turns: list[Turn], chains: int | None = None) -> None:
        """Append turns: x (C, dim) and statistics (C,) of each; the first so many chains, or all."""
        if turns:
            names = turns[0][1]
            packed = {name: torch.stack([stats[name] for _, stats in turns], 1)[:chains] for name in names}
            self.append(torch.stack([x for x, _ in turns], 1)[:chains].contiguous(), packed)

    def append(self, x: Tensor, stats: dict[str, Tensor]) -> None:
        """Append a chunk: x (C, n, dim) and statistics (C, n)."""
        if self.folder is None:
            self._held.append((x, stats))
        else:
            write(self._path(self.chunks), {"x": x, "stats": stats})
        self.chunks += 1
        self.made += x.shape[1]

    def read(self) -> Iterator[Turn]:
        """Every chunk, in order."""
        if self.folder is None:
            yield from self._held
            return
        for i in range(self.chunks):
            chunk = torch.load(self._path(i), weights_only=True)
            yield chunk["x"], chunk["stats"]

    def take(self) -> Iterator[Turn]:
        """The same, for the last time: what has been read is let go."""
        if self.folder is not None:
            yield from self.read()
            return
        self._held.reverse()
        while self._held:
            yield self._held.pop()

    def x(self) -> Tensor:
        """Every draw, (C, draw, dim)."""
        return torch.cat([x for x, _ in self.read()], 1)

    def gather(self, density: Density) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return all draws by site, (C, draw, *site), and all statistics, (C, draw); the store is empty then.

        Chunk by chunk, so that nothing is held twice. Where there is a folder they are files mapped into memory,
        which the system reads as they are looked at: as many draws as the disk holds.
        """
        draws: dict[str, Tensor] = {}
        stats: dict[str, Tensor] = {}
        at = 0
        for x, values in self.take():
            for whole, part in ((draws, density.constrain(x)), (stats, values)):
                for name, value in part.items():
                    if name not in whole:
                        number = len(draws) + len(stats)
                        whole[name] = self._room(value, number)
                    whole[name][:, at : at + x.shape[1]] = value
            at += x.shape[1]
        return draws, stats

    def _room(self, like: Tensor, number: int) -> Tensor:
        """Room for all draws of what one chunk of is `like`, (C, n, ...)."""
        shape = (like.shape[0], self.made, *like.shape[2:])
        if self.folder is None:
            return like.new_empty(shape)
        path, size = self.folder / f"site-{number:03d}.bin", torch.Size(shape).numel()
        path.unlink(missing_ok=True)  # an earlier fit may still look at the old file
        return torch.from_file(str(path), shared=True, size=size, dtype=like.dtype).reshape(shape)

    def _path(self, chunk: int) -> Path:
        assert self.folder is not None
        return self.folder / f"draws-{chunk:06d}.pt"


def write(path: Path, value: Any) -> None:
    """Write beside and rename, so that a file is whole or not there at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    torch.save(value, beside)
    os.replace(beside, path)
