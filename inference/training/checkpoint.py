"""A run's state in one file: tensors and facts, written beside and renamed, so that a file is whole or not there."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

SHARE = 0.05  # of a run's time that writing may take


@dataclass
class Checkpoint:
    """Where a run writes its state, and what run it is.

    path: the file. run: options that must be the same in the run that goes on from it.
    """

    path: Path
    run: dict[str, Any]
    _cost: float = 0.0
    _written: float = float("-inf")

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return the tensors and facts last written; None where there is no file.

        Raises: ValueError when the file is no checkpoint, or one of another run.
        """
        if not self.path.exists():
            return None
        try:
            with safe_open(str(self.path), "pt") as file:
                facts = json.loads(file.metadata()["facts"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self.path} is not a checkpoint of a run: {error}") from None
        other = [name for name, value in self.run.items() if facts["run"].get(name) != value]
        if other:
            said = ", ".join(f"{n} was {facts['run'].get(n)!r}, is {self.run[n]!r}" for n in other)
            raise ValueError(f"{self.path} belongs to another run: {said}; choose another file")
        return tensors, facts

    def due(self) -> bool:
        """Has enough time passed that writing costs no more than its share?"""
        return time.monotonic() - self._written > self._cost / SHARE

    def save(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Write the state; the earlier file stays until the new one is complete."""
        began = time.monotonic()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        whole = {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
        try:
            save_file(whole, str(beside), {"facts": json.dumps({**facts, "run": self.run})})
            os.replace(beside, self.path)
        finally:
            beside.unlink(missing_ok=True)
        self._written = time.monotonic()
        self._cost = self._written - began
