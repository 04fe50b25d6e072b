"""Which columns are of which kind, and what their values may be."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Kind = Literal["gaussian", "bernoulli", "categorical", "multinomial"]


@dataclass(frozen=True)
class Columns:
    """The kinds of the columns of x, and how many levels each categorical one has."""

    kinds: tuple[Kind, ...]
    levels: tuple[int, ...]

    @cached_property
    def places(self) -> dict[str, Tensor]:
        """Column numbers by kind."""
        numbers = range(len(self.kinds))
        return {kind: torch.tensor([i for i in numbers if self.kinds[i] == kind]).long() for kind in get_args(Kind)}

    @cached_property
    def tables(self) -> dict[int, int]:
        """Levels by the number of the categorical column."""
        return dict(zip(self.places["categorical"].tolist(), self.levels, strict=True))

    @cached_property
    def sparse(self) -> bool:
        """May rows be sparse? They may be where all columns are counted, or all are binary."""
        return set(self.kinds) in ({"multinomial"}, {"bernoulli"})

    def take(self, x: Tensor, kind: Kind) -> Tensor:
        """Return the columns of a kind, (N, ...); the whole of x, uncopied, when all are."""
        return x if set(self.kinds) == {kind} else x[:, self.places[kind]]

    def check(self, x: Tensor, names: Any = ()) -> None:
        """Raise a ValueError of one line that names the first cell that its column cannot hold; NaN is missing."""
        if x.ndim != 2 or x.shape[1] != len(self.kinds):
            raise ValueError(f"x must be (rows, {len(self.kinds)}); it is {tuple(x.shape)}")
        for kind in dict.fromkeys(self.kinds):
            values = self.take(x, kind)  # (N, columns of the kind)
            if kind == "gaussian" and len(x) and bool(torch.stack(values.aminmax()).isfinite().all()):
                continue  # a third of the cost of looking at every cell
            bad, what = self._wrong(values, kind)
            if bad.any():
                place, row = (int(i) for i in bad.mT.nonzero()[0])
                column = int(self.places[kind][place])
                name = repr(names[column]) if len(names) == len(self.kinds) else column
                what = f"a level from 0 to {self.tables[column] - 1}" if kind == "categorical" else what
                raise ValueError(f"x is {x[row, column].item()} in row {row}, column {name}, where {kind} wants {what}")

    def _wrong(self, values: Tensor, kind: Kind) -> tuple[Tensor, str]:
        """Return which cells a kind of column cannot hold, and what it wants; NaN is missing."""
        if kind == "gaussian":
            return values.isinf(), "a finite number"
        if kind == "bernoulli":
            return ~((values == 0) | (values == 1) | values.isnan()), "0 or 1"
        if kind == "categorical":
            top = torch.tensor(self.levels).to(values) - 1
            return ~(((values >= 0) & (values <= top) & (values == values.floor())) | values.isnan()), "a level"
        return ~((values >= 0) & values.isfinite()), "a count of 0 or more"


def check_labels(y: Tensor, classes: int) -> None:
    """Raise a ValueError that names the first row whose class is none of 0 to classes - 1, nor -1 for unknown."""
    bad = (~((y >= -1) & (y < classes) & (y == y.floor()))).nonzero()
    if len(bad):
        row = int(bad[0])
        raise ValueError(f"y is {y[row].item()} in row {row}; it must be 0 to {classes - 1}, or -1 where unknown")


def check_fields(model: Any) -> None:
    """Raise a ValueError of one line when a hyperparameter is out of its range."""
    if model.classes < 1:
        raise ValueError(f"classes must be at least 1; it is {model.classes}")
    wrong = [kind for kind in model.columns if kind not in get_args(Kind)]
    if wrong or not model.columns:
        raise ValueError(f"columns must be of {', '.join(get_args(Kind))}; got {wrong[0] if wrong else 'none'!r}")
    wanted = sum(kind == "categorical" for kind in model.columns)
    if len(model.levels) != wanted or any(level < 2 for level in model.levels):
        raise ValueError(f"levels needs {wanted} numbers of at least 2, one a categorical column; it is {model.levels}")
    real = sum(kind == "gaussian" for kind in model.columns)
    for name in ("center", "scale"):
        if len(getattr(model, name)) not in (1, real):
            raise ValueError(f"{name} needs 1 or {real} numbers; it has {len(getattr(model, name))}")
    for name, values in (("alpha", [model.alpha]), ("strength", [model.strength]), ("scale", model.scale)):
        if not all(0 < value < float("inf") for value in values):
            raise ValueError(f"{name} must be positive and finite; it is {getattr(model, name)}")


def describe(x: Any, columns: Sequence[Kind] | None) -> dict[str, Any]:
    """Return columns, all real unless said, and the means and sds of the real ones of x, (N, D), NaN left out.

    Raises: ValueError that names a real column without two different values.
    """
    x = torch.as_tensor(x)
    kinds = tuple(columns) if columns is not None else ("gaussian",) * x.shape[1]
    real = [i for i, kind in enumerate(kinds) if kind == "gaussian"]
    if not real:
        return {"columns": kinds}
    mean = x[:, real].double().nanmean(0)
    sd = (x[:, real].double() - mean).square().nanmean(0).sqrt()
    flat = (~(sd > 0)).nonzero()
    if len(flat):
        raise ValueError(f"column {real[int(flat[0])]} of x has no two values; leave it out")
    return {"columns": kinds, "center": tuple(mean.tolist()), "scale": tuple(sd.tolist())}
