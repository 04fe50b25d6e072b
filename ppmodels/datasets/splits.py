"""Folders of a regression data set with published splits, as results are compared on: read, checked, scaled.

A folder holds `data.txt`, columns apart by spaces; `index_features.txt` and `index_target.txt`, which columns are
what; and for each split K `index_train_K.txt` and `index_test_K.txt`, which rows are where. All count from 0.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ppmodels.base import Data


@dataclass(frozen=True)
class Split:
    """One split, x and y scaled to mean 0 and sd 1 by the training rows alone.

    train, test: given x (N, D), observed y (N,). mean, sd: of y before, for scores in its own unit.
    """

    train: Data
    test: Data
    mean: float
    sd: float

    def rmse(self, predicted: Tensor) -> float:
        """Return the root mean squared error of predictions of scaled y, (N,), in the unit of y."""
        return self.sd * float((predicted - self.test.observed["y"]).square().mean().sqrt())

    def log_likelihood(self, log_density: Tensor) -> float:
        """Return the mean log density of the test rows from that of scaled y, (N,), in the unit of y."""
        return float(log_density.mean()) - float(np.log(self.sd))


@dataclass(frozen=True)
class Splits(Sequence[Split]):
    """A data set and its published splits.

    x (N, D), y (N,): as they are in the file. rows: train and test rows of each split.
    """

    name: str
    x: Tensor
    y: Tensor
    rows: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    def read(cls, folder: str | Path) -> "Splits":
        """Read a folder.

        Raises: FileNotFoundError naming the file that is missing; ValueError naming file, row or column of what
            cannot be: a value that is no number, an index outside, a row that is in both parts of a split.
        """
        return _read(Path(folder))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Split:  # pyright: ignore[reportIncompatibleMethodOverride]
        train, test = self.rows[number]
        x, y = self.x[train], self.y[train]
        mean, sd = y.mean(), y.std(correction=0)
        spread = x.std(0, correction=0)
        spread = torch.where(spread > 0, spread, 1.0)  # a constant column stays constant
        parts = []
        for rows in (train, test):
            scaled = {"x": (self.x[rows] - x.mean(0)) / spread}
            parts.append(Data(len(rows), scaled, {"y": (self.y[rows] - mean) / sd}))
        return Split(parts[0], parts[1], float(mean), float(sd))

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Rows and features."""
        return self.x.shape[0], self.x.shape[1]


def _read(folder: Path) -> Splits:
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    values = _numbers(folder / "data.txt")
    columns = [_index(folder / f"index_{what}.txt", values.shape[1]) for what in ("features", "target")]
    if len(columns[1]) != 1 or set(columns[0]) & set(columns[1]):
        raise ValueError(f"{folder}: index_target.txt names one column, and index_features.txt others")
    rows = []
    while (folder / f"index_train_{len(rows)}.txt").exists():
        k = len(rows)
        train, test = (_index(folder / f"index_{part}_{k}.txt", len(values)) for part in ("train", "test"))
        both = np.intersect1d(train, test)
        if len(both):
            raise ValueError(f"{folder}: row {both[0]} is a training row and a test row of split {k}")
        rows.append((torch.from_numpy(train), torch.from_numpy(test)))
    if not rows:
        raise FileNotFoundError(f"{folder} has no splits: index_train_0.txt is not there")
    x, y = (torch.from_numpy(np.ascontiguousarray(values[:, part])) for part in columns)
    return Splits(folder.name, x, y[:, 0], tuple(rows))


def _numbers(path: Path) -> np.ndarray:
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an empty file, which is refused below
            values = np.loadtxt(path, ndmin=2)
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).splitlines()[0]}") from None
    bad = np.argwhere(~np.isfinite(values))
    if values.size == 0 or len(bad):
        where = f"row {bad[0][0]}, column {bad[0][1]} is {values[tuple(bad[0])]}" if len(bad) else "it is empty"
        raise ValueError(f"{path}: {where}")
    return values


def _index(path: Path, size: int) -> np.ndarray:
    values = _numbers(path).reshape(-1)
    index = values.astype(np.int64)
    if (index != values).any() or (index < 0).any() or (index >= size).any():
        bad = values[(index != values) | (index < 0) | (index >= size)][0]
        raise ValueError(f"{path}: {bad:g} is no index from 0 to {size - 1}")
    if len(np.unique(index)) < len(index):
        raise ValueError(f"{path}: an index is there twice")
    return index
