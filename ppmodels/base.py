"""The contract: what a data set is, what a model is, and what a model may add.

This file is all that `inference` knows of `ppmodels`, and all that a new model must know of the project.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import pyro
import torch
from pyro.distributions import Distribution
from torch import Tensor

Theta = dict[str, Tensor]


@dataclass(frozen=True)
class Data:
    """Some or all rows of one data set.

    rows: rows of the whole set, also when this holds only some of them.
    given: what the model conditions on and never scores, each (here, ...).
    observed: values of the model's observed sites, each (here, ...).
    index: which rows these are, (here,); None means all of them.
    coords: labels along a named dimension, {"feature": ("eruptions", "waiting")}.
    """

    rows: int
    given: Mapping[str, Tensor] = field(default_factory=dict)
    observed: Mapping[str, Tensor] = field(default_factory=dict)
    index: Tensor | None = None
    coords: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: "Model", coords: Mapping[str, Sequence[Any]] | None = None, **values: Any) -> "Data":
        """Arrays by name, sorted into observed and given; all have the same number of rows.

        Raises: ValueError when a name is unknown or missing, or when lengths differ.
        """
        tensors = {name: torch.as_tensor(value) for name, value in values.items()}
        wanted = [*model.inputs(1), *model.observed]
        if sorted(tensors) != sorted(wanted):
            raise ValueError(f"{type(model).__name__} takes {', '.join(wanted)}; got {', '.join(tensors)}")
        lengths = {name: len(value) for name, value in tensors.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"every array needs the same number of rows; got {lengths}")
        observed = {name: tensors[name] for name in model.observed}
        given = {name: value for name, value in tensors.items() if name not in observed}
        return cls(next(iter(lengths.values())), given, observed, coords=coords or {})

    def plate(self) -> pyro.plate:
        """Independent rows; a minibatch is scaled up to the whole set."""
        return pyro.plate("rows", self.rows, subsample=self.index, dim=-1)

    def batch(self, index: Tensor) -> "Data":
        """These rows alone, remembering how many there are in all."""
        given = {name: value[index] for name, value in self.given.items()}
        observed = {name: value[index] for name, value in self.observed.items()}
        return replace(self, given=given, observed=observed, index=index)


def dims(*names: str) -> Any:
    """Name a site's event axes, `pyro.sample("x", ..., infer=dims("feature"))`; plates name the others."""
    return {"event_dims": names}


@runtime_checkable
class Model(Protocol):
    """p(latents, observed | given), told as a story: a frozen dataclass whose fields are hyperparameters."""

    observed: ClassVar[tuple[str, ...]]

    def inputs(self, rows: int) -> dict[str, Tensor]:
        """Return example values of what is given, each (rows, ...); {} when nothing is."""
        ...

    def model(self, data: Data) -> None:
        """Sample every site, observed ones too; never read `data.observed`."""
        ...


@runtime_checkable
class HasGuide(Model, Protocol):
    """A hand-written q(latents | data). Without one, SVI takes an automatic guide."""

    def guide(self, data: Data) -> None: ...


@runtime_checkable
class HasPosterior(Model, Protocol):
    """The exact posterior, by conjugacy: what every other back end is judged against."""

    def posterior(self, data: Data) -> dict[str, Distribution]:
        """Return independent exact posteriors by site name."""
        ...


@runtime_checkable
class HasEM(Model, Protocol):
    """Expectation and maximisation in closed form. q is the posterior of the row latents, (N, ...)."""

    def start(self, data: Data) -> Theta:
        """Return parameters to start from, by site name; random, so that restarts differ."""
        ...

    def e_step(self, theta: Theta, data: Data) -> tuple[Tensor, Tensor]:
        """Return q(z) = p(z | x, theta), and log p(x | theta), ()."""
        ...

    def m_step(self, q: Tensor, data: Data, prior: bool) -> Theta:
        """Return argmax of E_q log p(x, z | theta), plus log p(theta) when `prior`."""
        ...

    def bound(self, q: Tensor, theta: Theta, data: Data) -> Tensor:
        """Return E_q log p(x, z | theta) - E_q log q(z), (): at most log p(x | theta)."""
        ...


@runtime_checkable
class HasLabels(Model, Protocol):
    """Latents that mean the same in any order, such as a mixture's components."""

    def relabel(self, draws: Theta) -> Theta:
        """Return the draws, (..., *site) each, every one with its latents in one agreed order."""
        ...
