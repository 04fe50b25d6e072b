"""Data files for the command line: CSV, Parquet and NPZ as a model's arrays, or one line that says what is wrong."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from inference.predict import simulate
from ppmodels.base import Data, Model

Arrays = dict[str, tuple[np.ndarray, tuple[str, ...]]]


def load(path: Path, wanted: Sequence[str], columns: Mapping[str, Sequence[str]]) -> Arrays:
    """Return the file's arrays by name, each with its column names.

    wanted: the arrays that the model takes.
    columns: which columns of the table make which array; an array that is not named takes all the others.

    Raises: ValueError of one line for a file that is missing, empty, or holds what is not a finite number.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty")
    for array in columns:
        if array not in wanted:
            raise ValueError(f"the model takes {', '.join(wanted)}; it has no array {array!r}")
    arrays = _npz(path, wanted) if path.suffix == ".npz" else _from_table(_table(path), wanted, columns, path)
    for name, (value, labels) in arrays.items():
        if not value.ndim or not len(value):
            raise ValueError(f"{name} of {path} has no rows; its shape is {value.shape}")
        _check_finite(value, name, labels, path)
    return arrays


def check(arrays: Arrays, model: Model, path: Path) -> Data:
    """Return the arrays as the model's data.

    Raises: ValueError of one line for an array whose shape is not what the model takes.
    """
    expected, values, coords = _shapes(model), {}, {}
    for name, (value, labels) in arrays.items():
        if value.ndim == 2 and value.shape[1] == 1 and not expected[name]:
            value, labels = value[:, 0], ()
        if value.shape[1:] != expected[name]:
            shape = ", ".join(["rows", *map(str, expected[name])])
            raise ValueError(f"{name} needs the shape ({shape}); {path} gives it {value.shape}")
        values[name] = torch.as_tensor(value)
        if labels and "feature" not in coords:
            coords["feature"] = labels
    return Data.of(model, coords, **values)


def names_of(model: Model) -> list[str]:
    """Return the arrays that a model takes, what is given first."""
    return [*model.inputs(1), *model.observed]


def parse_columns(pairs: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return {"y": ("waiting",)} of ["y=waiting"].

    Raises: ValueError when a pair has no equals sign.
    """
    found = {}
    for pair in pairs:
        name, equals, names = pair.partition("=")
        if not equals or not name or not names:
            raise ValueError(f"--columns takes ARRAY=COLUMN[,COLUMN...]; got {pair!r}")
        found[name] = tuple(names.split(","))
    return found


def _table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path) if path.suffix in {".parquet", ".pq"} else pd.read_csv(path)
    except ImportError:
        raise ValueError(f"reading {path} needs pyarrow: pip install 'ppmodels[parquet]'") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {str(error).strip().splitlines()[0]}") from None


def _from_table(table: pd.DataFrame, wanted: Sequence[str], columns: Mapping[str, Sequence[str]], path: Path) -> Arrays:
    if not len(table):
        raise ValueError(f"{path} has column names but no rows")
    names = [str(c) for c in table.columns]
    table.columns = names
    if all(_is_number(name) for name in names):
        raise ValueError(f"{path} has no line of column names: its first line is {', '.join(names)}")
    for chosen in columns.values():
        missing = [c for c in chosen if c not in names]
        if missing:
            raise ValueError(f"{path} has no column {missing[0]!r}; it has {', '.join(names)}")
    open_arrays = [name for name in wanted if name not in columns]
    if len(open_arrays) > 1:
        raise ValueError(f"say which columns are {' and '.join(open_arrays[1:])}: --columns {open_arrays[-1]}=NAME")
    claimed = {c for chosen in columns.values() for c in chosen}
    rest = [c for c in names if c not in claimed]
    if open_arrays and not rest:
        raise ValueError(f"no column of {path} is left for {open_arrays[0]}")
    chosen = {name: list(columns.get(name, rest)) for name in wanted}
    return {name: (_numbers(table.loc[:, cols], path), tuple(cols)) for name, cols in chosen.items()}


def _numbers(table: pd.DataFrame, path: Path) -> np.ndarray:
    """The table's values, (rows, columns)."""
    columns = []
    for name in table.columns:
        numbers = np.asarray(pd.to_numeric(table[name], errors="coerce"), dtype=float)
        wrong = np.isnan(numbers) & np.asarray(table[name].notna())
        if wrong.any():
            row = int(wrong.argmax())
            value = table[name].iloc[row]
            raise ValueError(f"{path}: column {name!r} holds text, {value!r} in row {row}; leave it out or code it")
        columns.append(numbers)
    return np.stack(columns, 1)


def _npz(path: Path, wanted: Sequence[str]) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name]) for name in file.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read: {str(error).strip().splitlines()[0]}") from None
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise ValueError(f"{path} has no array {missing[0]!r}; it has {', '.join(arrays) or 'none'}")
    for name in wanted:
        if arrays[name].dtype.kind not in "biuf":
            raise ValueError(f"{name} of {path} holds no numbers: its type is {arrays[name].dtype}")
    return {name: (arrays[name].astype(float), ()) for name in wanted}


def _check_finite(value: np.ndarray, name: str, labels: Sequence[str], path: Path) -> None:
    wrong = np.argwhere(~np.isfinite(value))
    if len(wrong):
        row, *rest = (int(i) for i in wrong[0])
        column = f", column {labels[rest[0]]!r}" if rest and labels else f", column {rest[0]}" if rest else ""
        raise ValueError(f"{path}: {name} is {value[tuple(wrong[0])]} in row {row}{column}; drop or fill such rows")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """The shape of a row of each array."""
    data, _ = simulate(model, 2)
    return {name: tuple(value.shape[1:]) for name, value in {**data.given, **data.observed}.items()}
