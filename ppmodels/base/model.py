"""What a data set is, and what a model is."""

# pyright: reportReturnType=false
# A protocol's method is its docstring: what it returns is for models to say.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import pyro
import torch
from torch import Tensor


@dataclass(frozen=True)
class Data:
    """Some or all rows of one data set.

    rows: rows of the whole set, also when this holds only some of them.
    given: what the model conditions on and never scores, each (here, ...).
    observed: values of the model's observed sites, each (here, ...).
    index: which rows these are, (here,); None means all of them.
    coords: labels along a named dimension, {"feature": ("eruptions", "waiting")}.
    units: of what a label or an array's name stands for, {"waiting": "min"}; pictures write them on their axes.
    """

    rows: int
    given: Mapping[str, Tensor] = field(default_factory=dict)
    observed: Mapping[str, Tensor] = field(default_factory=dict)
    index: Tensor | None = None
    coords: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: "Model",
        coords: Mapping[str, Sequence[Any]] | None = None,
        units: Mapping[str, str] | None = None,
        **values: Any,
    ) -> "Data":
        """Arrays by name, sorted into observed and given; all have the same number of rows.

        Raises: ValueError when a name is unknown or missing, when lengths differ, or for what is no number.
        """
        tensors = {name: _numbers(name, value) for name, value in values.items()}
        wanted, optional = [*model.inputs(1), *model.observed], set(getattr(model, "optional", ()))  # `HasOptional`
        if sorted(tensors.keys() - optional) != sorted(wanted):
            raise ValueError(f"{type(model).__name__} takes {', '.join(wanted)}; got {', '.join(tensors)}")
        lengths = {name: len(value) for name, value in tensors.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"every array needs the same number of rows; got {lengths}")
        observed = {name: tensors[name] for name in model.observed}
        given = {name: value for name, value in tensors.items() if name not in observed}
        return cls(next(iter(lengths.values())), given, observed, coords=coords or {}, units=units or {})

    def plate(self) -> pyro.plate:
        """Independent rows; a minibatch is scaled up to the whole set."""
        return pyro.plate("rows", self.rows, subsample=self.index, dim=-1)

    def batch(self, index: Tensor) -> "Data":
        """These rows alone, remembering how many there are in all."""
        given = {name: _rows(value, index) for name, value in self.given.items()}
        observed = {name: _rows(value, index) for name, value in self.observed.items()}
        return replace(self, given=given, observed=observed, index=index)

    def plain(self, model: "Model") -> "Data":
        """The data without what the model's own program never reads, such as weights of rows (`HasOptional`)."""
        optional = getattr(model, "optional", ())
        return replace(self, given={name: value for name, value in self.given.items() if name not in optional})


def _rows(value: Tensor, index: Tensor) -> Tensor:
    """These rows of an array, or of a sparse matrix, which takes no brackets."""
    return value[index] if value.layout == torch.strided else value.index_select(0, index)


def _numbers(name: str, value: Any) -> Tensor:
    """The values as a tensor, in NumPy's precision where they are none yet; SciPy's sparse matrix as torch's COO."""
    if isinstance(value, Tensor):
        return value
    if hasattr(value, "tocoo"):
        sorted_once = bool(getattr(value, "has_canonical_format", False)) and value.format == "csr"
        value = value.tocoo()
        place, data = torch.from_numpy(np.stack([value.row, value.col]).astype(np.int64)), torch.from_numpy(value.data)
        options = {"check_invariants": False, "is_coalesced": sorted_once}
        return torch.sparse_coo_tensor(place, data, value.shape, **options).coalesce()
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(f"{name} has rows of different lengths") from None
    if array.dtype.kind not in "biufc":
        for place, cell in np.ndenumerate(array.astype(object)):
            try:
                float(cell)
            except (TypeError, ValueError):
                where = " in row " + ", column ".join(map(str, place)) if place else ""
                raise ValueError(f"{name} holds no number but {cell!r}{where}; leave it out or code it") from None
        array = array.astype(float)
    return torch.as_tensor(array if array.flags.writeable else array.copy())


def dims(*names: str) -> Any:
    """Name a site's event axes, `pyro.sample("x", ..., infer=dims("feature"))`; plates name the others."""
    return {"event_dims": names}


@runtime_checkable
class Model(Protocol):
    """p(latents, observed | given), told as a story: a frozen dataclass whose fields are hyperparameters."""

    observed: ClassVar[tuple[str, ...]]

    def inputs(self, rows: int) -> dict[str, Tensor]:
        """Return example values of what is given, each (rows, ...); {} when nothing is."""

    def model(self, data: Data) -> None:
        """Sample every site, observed ones too; never read `data.observed`."""
