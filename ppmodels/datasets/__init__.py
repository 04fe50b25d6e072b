"""Small real data sets, one loader each; `README.md` beside them says where each is from."""

import csv
from importlib.resources import files

import torch

from ppmodels.base import Data

__all__ = ["old_faithful"]


def old_faithful() -> Data:
    """Return the eruptions of the Old Faithful geyser: length, and time to the next one, in minutes.

    Observed: x (272, 2), float64; the columns are named in `coords`.
    Source: Azzalini and Bowman (1990), Applied Statistics 39, 357-365.
    """
    return _read("old_faithful.csv", {"eruptions": "min", "waiting": "min"})


def _read(name: str, units: dict[str, str]) -> Data:
    """A CSV of numbers under one line of column names, as the rows of x."""
    text = files(__name__).joinpath(name).read_text(encoding="utf-8")
    columns, *rows = csv.reader(text.splitlines())
    x = torch.tensor([[float(value) for value in row] for row in rows], dtype=torch.float64)  # (N, D)
    return Data(len(x), observed={"x": x}, coords={"feature": tuple(columns)}, units=units)
