"""What a mixture's hyperparameters and rows must be."""

import math
from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from ppmodels.base import Data
from ppmodels.clustering._covariance import Family
from ppmodels.clustering._starts import Seeding

SEEN = 10_000  # rows that are looked at first for distinct ones


def check_data(model: Any, data: Data) -> None:
    """Raise a ValueError of one line where rows or weights are not what this mixture can be fitted to."""
    x = data.observed["x"]
    check_rows(x, model.components, model.dim, data.coords.get("feature", ()))
    check_weight(data.given.get("weight"), len(x))
    distinct = len(x[:SEEN].unique(dim=0))
    if distinct < model.components and (distinct := len(x.unique(dim=0))) < model.components:
        raise ValueError(f"x has only {distinct} distinct rows; {model.components} components need {model.components}")


def check_rows(x: Tensor, components: int, dim: int | None = None, columns: Sequence[Any] = ()) -> Tensor:
    """Return x when it is (rows, dim), varied and long enough; NaN is a missing value. Rows and columns count from 0.

    Raises: ValueError of one line that says what is wrong and where.
    """
    if x.ndim != 2 or (dim is not None and x.shape[1] != dim):
        raise ValueError(f"x must be (rows, {dim or 'columns'}); it is {tuple(x.shape)}")
    dim = x.shape[1]
    if len(x) < components:
        raise ValueError(f"{components} components need at least as many rows; x has {len(x)}")
    names = [repr(c) for c in columns] if len(columns) == dim else [str(i) for i in range(dim)]
    low, high = torch.aminmax(x, dim=0)
    for column in (~((low < high) & low.isfinite() & high.isfinite())).nonzero()[:, 0].tolist():  # NaN is looked into
        values, name = x[:, column], names[column]
        if values.isinf().any():
            row = int(values.isinf().nonzero()[0])
            raise ValueError(f"x is {values[row].item()} in row {row}, column {name}")
        there = values[~values.isnan()]
        if not len(there):
            raise ValueError(f"column {name} of x has no value at all; leave it out")
        if (there == there[0]).all() and len(x) > 1:
            raise ValueError(f"column {name} of x is constant; leave it out")
    return x


def check_weight(weight: Tensor | None, rows: int) -> None:
    """Raise a ValueError that names the row whose weight is negative or no number."""
    if weight is None:
        return
    if weight.shape != (rows,):
        raise ValueError(f"weight must be ({rows},); it is {tuple(weight.shape)}")
    wrong = (~((weight >= 0) & weight.isfinite())).nonzero()
    if len(wrong):
        raise ValueError(f"weight is {weight[wrong[0, 0]].item()} in row {int(wrong[0, 0])}; it must be 0 or more")


def describe(x: Any, components: int) -> dict[str, Any]:
    """Return dim, center and scale of x, (N, D), after a check: its columns' number, means and sds."""
    x = check_rows(torch.as_tensor(x).double(), components)
    if not x.sum().isnan():
        middle, scale = x.mean(0), x.std(0)
    else:
        middle, there = x.nanmean(0), (~x.isnan()).sum(0)
        scale = ((x - middle).square().nansum(0) / (there - 1)).sqrt()
    return {"dim": x.shape[1], "center": tuple(middle.tolist()), "scale": tuple(scale.tolist())}


def check_fields(model: Any) -> None:
    """Raise a ValueError of one line when a hyperparameter is out of its range."""
    for name, least in (("components", 1), ("dim", 1), ("concentration", 1)):
        if not getattr(model, name) >= least:
            raise ValueError(f"{name} must be at least {least}; it is {getattr(model, name)}")
    for name, above in (("spread", 0), ("width", 0), ("strength", 2)):
        if not above < getattr(model, name) < math.inf:
            raise ValueError(f"{name} must be above {above} and finite; it is {getattr(model, name)}")
    for name, choice in (("covariance", get_args(Family)), ("seeding", get_args(Seeding))):
        if getattr(model, name) not in choice:
            raise ValueError(f"{name} must be one of {', '.join(choice)}; it is {getattr(model, name)!r}")
    for name in ("center", "scale"):
        if len(getattr(model, name)) not in (1, model.dim):
            raise ValueError(f"{name} needs 1 or {model.dim} numbers; it has {len(getattr(model, name))}")
    if not all(0 < s < math.inf for s in model.scale):
        raise ValueError(f"scale must be positive and finite; it is {model.scale}")
