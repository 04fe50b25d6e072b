"""The contract: what a data set is, what a model is, and what a model may add.

This file is all that `inference` knows of `ppmodels`, and all that a new model must know of the project.
"""

# pyright: reportReturnType=false
# A protocol's method is its docstring: what it returns is for models to say.

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import pyro
import torch
from pyro.distributions import Distribution
from torch import Tensor, nn

Theta = dict[str, Tensor]


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
        wanted, optional = [*model.inputs(1), *model.observed], set(getattr(model, "optional", ()))
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
        given = {name: value[index] for name, value in self.given.items()}
        observed = {name: value[index] for name, value in self.observed.items()}
        return replace(self, given=given, observed=observed, index=index)


def _numbers(name: str, value: Any) -> Tensor:
    """The values as a tensor; what is no tensor, such as a list or a table, in NumPy's precision."""
    if isinstance(value, Tensor):
        return value
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


@runtime_checkable
class HasGuide(Model, Protocol):
    """A hand-written q(latents | data). Without one, SVI takes an automatic guide."""

    def guide(self, data: Data) -> None: ...


@runtime_checkable
class HasPosterior(Model, Protocol):
    """The exact posterior, by conjugacy: what every other back end is judged against."""

    def posterior(self, data: Data) -> Mapping[str, Distribution | Callable[[Theta], Distribution]]:
        """Return exact posteriors by site: independent, or a function of the draws of the sites before it."""


@runtime_checkable
class HasEM(Model, Protocol):
    """Expectation and maximisation in closed form. q is the posterior of the row latents, (N, ...)."""

    def start(self, data: Data) -> Theta:
        """Return parameters to start from, by site name; random, so that restarts differ."""

    def e_step(self, theta: Theta, data: Data) -> tuple[Tensor, Tensor]:
        """Return q(z) = p(z | x, theta), and log p(x | theta), ()."""

    def m_step(self, q: Tensor, data: Data, prior: bool) -> Theta:
        """Return argmax of E_q log p(x, z | theta), plus log p(theta) when `prior`."""

    def bound(self, q: Tensor, theta: Theta, data: Data) -> Tensor:
        """Return E_q log p(x, z | theta) - E_q log q(z), (): at most log p(x | theta)."""


@runtime_checkable
class HasNetwork(Model, Protocol):
    """A network with latent weights, its story in three parts: `observe(outputs(weights(), data), data)`.

    Weights are not identified, so chains are compared by what they predict; and back ends that treat layers
    one by one look into `module`.
    """

    @property
    def module(self) -> nn.Module:
        """The network; its parameters' names are the sites of its weights."""

    def weights(self) -> Theta:
        """Sample every weight; return them by site."""

    def outputs(self, weights: Theta, data: Data) -> Tensor:
        """Return the network's outputs, (N, K), without sampling."""

    def observe(self, outputs: Tensor, data: Data) -> None:
        """Sample the observed sites at these outputs, and the latents that are not weights."""


@runtime_checkable
class HasStatistics(HasEM, Protocol):
    """EM whose M step reads sums over rows alone: they are taken in one pass, in batches, or from a stream.

    The sums of two sets of rows add by `+`, and `* number` scales their weight.
    """

    def statistics(self, theta: Theta, data: Data) -> tuple[Any, Tensor]:
        """Return the sums expected under p(z | x, theta), and log p(x | theta), ()."""

    def maximise(self, statistics: Any, prior: bool) -> Theta:
        """Return argmax of E_q log p(x, z | theta), plus log p(theta) when `prior`."""

    def expected_log_joint(self, statistics: Any, theta: Theta) -> Tensor:
        """Return E_q log p(x, z | theta), (), where q is what the sums were expected under."""


@runtime_checkable
class HasCheck(Model, Protocol):
    """Data that it cannot have made, found before a fit begins."""

    def check(self, data: Data) -> None:
        """Raise ValueError of one line that names the first bad row and column, and says what to do."""


@runtime_checkable
class HasLabels(Model, Protocol):
    """Latents that mean the same in any order, such as a mixture's components."""

    def relabel(self, draws: Theta) -> Theta:
        """Return the draws, (..., *site) each, every one with its latents in one agreed order."""


@dataclass(frozen=True)
class Peak:
    """A mode, and where it was asked for, the Gaussian there.

    theta: sites by name. log_density: log p(observed, theta). decrement: nats that are still to be gained.
    log_evidence: Laplace's approximation of log p(observed). draw: number and generator to draws of that Gaussian by
        site, (S, *site), and log p - log q of some of them, less a constant, one row an independent part.
    """

    theta: Theta
    log_density: float
    decrement: float
    steps: int
    log_evidence: float | None = None
    draw: Callable[[int, torch.Generator], tuple[Theta, Tensor]] | None = None


@runtime_checkable
class HasPeak(Model, Protocol):
    """A way of its own to its only mode, faster than climbing: for a concave model whose sites are all real."""

    def peak(self, data: Data, curvature: bool = False) -> Peak | None:
        """Return the mode; None where these fields have no such way."""


@runtime_checkable
class HasParts(Model, Protocol):
    """A posterior that is a product: each part is a Pyro program with its arguments, and can be sampled by itself."""

    def parts(self, data: Data) -> Iterable[tuple[Callable[..., None], tuple[Any, ...]]]:
        """Return the parts; one program for all of them where it can be, so that it is traced once."""

    def join(self, draws: Sequence[Theta]) -> Theta:
        """Return the whole model's sites of the parts' sites, (..., *site) each."""


@runtime_checkable
class HasBlocks(Model, Protocol):
    """Latents in blocks, each with a law in closed form given all others. Labels z of rows may be among them."""

    def sweep(self, data: Data, latents: Theta | None) -> Theta:
        """Return latents of which each block was drawn given the others (Gibbs); None begins."""

    def ascend(self, data: Data) -> Iterator[tuple[float, Callable[[int], Theta]]]:
        """Yield the evidence bound after each step of coordinate ascent, and what draws from the blocks' laws then."""
