"""Draws as they come: chunk by chunk, in memory or in a folder that survives a crash."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@dataclass
class Store:
    """Chunks of draws, x (C, n, dim) each, with statistics (C, n); kept in a folder where there is one."""

    folder: Path | None = None
    x: list[Tensor] = field(default_factory=list)
    stats: list[dict[str, Tensor]] = field(default_factory=list)

    def add(self, x: list[Tensor], stats: list[dict[str, Tensor]]) -> None:
        """Append turns: x (C, dim) and statistics (C,) of each."""
        if not x:
            return
        draws = torch.stack(x, 1).contiguous()
        packed = {name: torch.stack([s[name] for s in stats], 1) for name in stats[0]}
        if self.folder is not None:
            write(self.folder / f"draws-{len(self.x):06d}.pt", {"x": draws, "stats": packed})
        self.x.append(draws)
        self.stats.append(packed)

    def all(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Every draw, (C, draw, dim), and every statistic, (C, draw)."""
        names = self.stats[0] if self.stats else {}
        return torch.cat(self.x, 1), {name: torch.cat([s[name] for s in self.stats], 1) for name in names}

    def load(self, chunks: int) -> None:
        """Read the first chunks back; later ones, written after the last state, are drawn again."""
        assert self.folder is not None
        for i in range(chunks):
            chunk = torch.load(self.folder / f"draws-{i:06d}.pt", weights_only=True)
            self.x.append(chunk["x"])
            self.stats.append(chunk["stats"])


def write(path: Path, value: Any) -> None:
    """Write beside and rename, so that a file is whole or not there at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    torch.save(value, beside)
    os.replace(beside, path)
