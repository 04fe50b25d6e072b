"""What a model may add to its story, a protocol each; back ends ask for these and for nothing else."""

# pyright: reportReturnType=false
# A protocol's method is its docstring: what it returns is for models to say.

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from pyro.distributions import Distribution
from torch import Tensor, nn

from ppmodels.base.model import Data, Model

Theta = dict[str, Tensor]


@runtime_checkable
class HasOptional(Model, Protocol):
    """Arrays that `Data.of` takes but does not ask for, as `weight`, how often a row counts; `model` reads none."""

    optional: ClassVar[tuple[str, ...]]


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
class HasEvidence(HasPosterior, Protocol):
    """A posterior whose normaliser is known too."""

    def log_evidence(self, data: Data) -> Tensor:
        """Return log p(observed | given), ()."""


@runtime_checkable
class HasSums(HasPosterior, Protocol):
    """An exact posterior that reads sums over rows alone: rows may come in pieces, and be forgotten.

    The sums of two sets of rows add by `+`, exactly: pieces give what the whole gives.
    """

    def sums(self, data: Data) -> Any:
        """Return the sufficient statistics of these rows."""

    def given(self, sums: Any) -> Mapping[str, Distribution | Callable[[Theta], Distribution]]:
        """Return the posterior by site, as `posterior` does, of all rows whose sums these are."""


@runtime_checkable
class HasClasses(Model, Protocol):
    """A class y of each row, whose laws are known all at once.

    sparse: may x be a sparse matrix? All that reads it, except `model`, then takes torch's COO.
    """

    @property
    def sparse(self) -> bool: ...

    def log_joint(self, theta: Theta, data: Data) -> Tensor:
        """Return log p(x, y = c | theta) of each row and class, (N, C), up to a constant a row; y is not read."""


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
class HasRestart(HasEM, Protocol):
    """A second kind of start: EM's restarts take the two in turn."""

    def restart(self, data: Data) -> Theta:
        """Return parameters to start from, as `start` does."""


@runtime_checkable
class ApproximateEM(HasEM, Protocol):
    """EM whose E step is not exact. EM says so, and where the objective may fall keeps its highest point.

    approximate: in what way, in a few words; "" where these fields make it exact. climbs: can the objective never fall?
    """

    @property
    def approximate(self) -> str: ...

    @property
    def climbs(self) -> bool: ...


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

    The sums of two sets of rows add by `+`, and `* number` scales their weight. Where they have a method `doubt`, it
    returns why a top of these sums should not be trusted, or "": EM then prefers another.
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
