"""Loads in turn, in one process or in several that share the vectors; interrupted, and taken up again."""

import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import torch
from joblib import Parallel, cpu_count, delayed
from rich.progress import Progress
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ppmodels.embedding._plan import Plan

EVERY = 30.0  # seconds between checkpoints
Train = Callable[[Sequence[int]], list[float]]


def run(
    plan: Plan, v: Tensor, u: Tensor, told: str, workers: int, progress_bar: bool, checkpoint: str | Path | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return v, u and the losses, (loads,), after all epochs; from a checkpoint where there is one.

    told: what the call was, by which a checkpoint is known.
    """
    total, processes = len(plan.loads) * plan.epochs, cpu_count() if workers < 0 else workers
    first, losses, saved = 0, torch.full((total,), float("nan")), time.monotonic()
    if checkpoint is not None and Path(checkpoint).exists():
        first, v, u, losses = _restored(Path(checkpoint), told)
    with _shared(plan, v, u, processes) as (v, u, train), Progress(disable=not progress_bar) as bar:
        task = bar.add_task("word2vec", total=total, completed=first)
        while first < total:
            numbers = range(first, min(total, first + (4 * processes if processes > 1 else 1)))
            losses[first : numbers.stop] = torch.tensor(train(numbers))
            first = numbers.stop
            bar.update(task, completed=first)
            if not (v.isfinite().all() and u.isfinite().all()):
                raise ArithmeticError(
                    f"vectors grew out of all bounds by load {first} of {total}; lower lr or batch_size"
                )
            if checkpoint is not None and (first == total or time.monotonic() - saved > EVERY):
                _save(Path(checkpoint), told, first, v, u, losses)
                saved = time.monotonic()
        return v.cpu().clone(), u.cpu().clone(), losses


@contextmanager
def _shared(plan: Plan, v: Tensor, u: Tensor, processes: int) -> Iterator[tuple[Tensor, Tensor, Train]]:
    """Yield the vectors where they are trained, and what trains them on loads: files mapped by every process."""
    if processes == 1:
        v, u = v.to(plan.device), u.to(plan.device)
        yield v, u, lambda numbers: [plan.train(number, v, u) for number in numbers]
        return
    with TemporaryDirectory() as folder, Parallel(n_jobs=processes) as parallel:
        shapes = (v.shape[0], v.shape[1]), (u.shape[0], u.shape[1])
        (Path(folder) / "plan").write_bytes(pickle.dumps(plan))
        mapped = _mapped(folder, shapes)
        for here, there in zip(mapped, (v, u), strict=True):
            here.copy_(there)
        v, u = mapped
        yield v, u, lambda numbers: cast(list[float], parallel(delayed(_train)(folder, shapes, n) for n in numbers))


def _train(folder: str, shapes: tuple[tuple[int, int], ...], number: int) -> float:
    """In a worker: one load, without waiting for the others (Niu et al. 2011, Hogwild, NIPS 24)."""
    plan, v, u = _opened(folder, shapes)
    return plan.train(number, v, u)


@lru_cache(maxsize=1)
def _opened(folder: str, shapes: tuple[tuple[int, int], ...]) -> tuple[Plan, Tensor, Tensor]:
    v, u = _mapped(folder, shapes)
    return pickle.loads((Path(folder) / "plan").read_bytes()), v, u


def _mapped(folder: str, shapes: tuple[tuple[int, int], ...]) -> tuple[Tensor, Tensor]:
    v, u = (
        torch.from_file(str(Path(folder) / name), shared=True, size=rows * columns).view(rows, columns)
        for name, (rows, columns) in zip(("v", "u"), shapes, strict=True)
    )
    return v, u


def _save(path: Path, told: str, first: int, v: Tensor, u: Tensor, losses: Tensor) -> None:
    """Write beside the old checkpoint, then put it in its place: there is always a whole one."""
    tensors = {"v": v.cpu().contiguous(), "u": u.cpu().contiguous(), "losses": losses}
    beside = path.with_name(path.name + ".part")
    save_file(tensors, beside, {"told": told, "first": str(first)})
    os.replace(beside, path)


def _restored(path: Path, told: str) -> tuple[int, Tensor, Tensor, Tensor]:
    with safe_open(path, "pt") as file:
        meta = file.metadata() or {}
        if meta.get("told") != told:
            raise ValueError(f"{path} is of another call: {meta.get('told')}; take another file, or remove it")
        v, u, losses = (file.get_tensor(name) for name in ("v", "u", "losses"))
    return int(meta["first"]), v, u, losses
