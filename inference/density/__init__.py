"""Any Pyro program as a flat, unconstrained, enumerated log density with gradient: traced once, batched, compiled.

    density = Density.of(program, args, kwargs)
    fast = density.batched(chains=256, calls=100_000)       # compiled where that many calls earn it back
    log_prob, grad = fast(x)                                # x (256, dim) -> (256,), (256, dim)

Every back end that looks at a density looks at this one. A traced program is checked, value and gradient,
against the program itself at fresh points before it is used; one that fails is not used.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from inference.base import Unsupported
from inference.density import program as eager
from inference.density.executor import Batched, Traced, close, loop, one_line, out_of_memory, prepare
from inference.density.graph import trace
from inference.density.inputs import fingerprint, no_validation, rebuild, tensors_of
from inference.density.program import Layout, Site
from inference.density.sites import SiteMap, site_map
from inference.density.support import refuse_impossible

__all__ = ["Batched", "Density", "Layout", "Site"]

log = logging.getLogger("inference")

_traces: OrderedDict[Any, Traced] = OrderedDict()  # what was traced in this process, newest last
KEPT = 64


@dataclass(frozen=True)
class Density:
    """log p(latents, observed) of a Pyro program over unconstrained x, (dim,), with log |det Jacobian|.

    layout: the program's sites and their places in x.
    jacobian: False leaves log |det Jacobian| out, for a mode in the sites' own coordinates.
    """

    layout: Layout
    program: Callable[..., Any] = field(repr=False)
    args: tuple[Any, ...] = field(repr=False)
    kwargs: Mapping[str, Any] = field(repr=False)
    jacobian: bool = True
    _made: dict[Any, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, program: Callable[..., Any], args: Any = (), kwargs: Any = None, jacobian: bool = True) -> "Density":
        """Read the program's sites. Call it inside `inference.base.fresh`.

        Raises: Unsupported when a discrete site cannot be summed out, when there is nothing to infer, or
        when two evaluations at one point differ. ValueError for an observation outside its support.
        """
        layout = eager.read_layout(program, tuple(args), kwargs or {})
        if not layout.sites:
            raise Unsupported("the model has no continuous latent site; there is nothing to infer")
        refuse_impossible(program, tuple(args), kwargs or {})
        density = cls(layout, program, tuple(args), dict(kwargs or {}), jacobian)
        density._refuse_randomness()
        return density

    @property
    def dim(self) -> int:
        """Number of unconstrained coordinates."""
        return self.layout.dim

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p, (), and its gradient, (dim,), by running the program itself at x, (dim,)."""
        return self._value_and_grad(x, *self._tensors)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p, (), at x, (dim,), differentiable to any order, by running the program itself."""
        with no_validation():
            return self._eager(x, self.args, self.kwargs)

    def hessian(self, x: Tensor) -> Tensor:
        """Return the exact Hessian of log p at x, (dim, dim)."""
        hessian = torch.autograd.functional.hessian(self.log_prob, x.detach())
        return 0.5 * (hessian + hessian.mT)

    @property
    def device(self) -> torch.device:
        """Where the data lie, and so where chains live."""
        return self._tensors[0].device if self._tensors else torch.device("cpu")

    @property
    def cost(self) -> int:
        """Numbers that one evaluation for one chain writes: what batching can save nothing of."""
        traced, _ = self._traced()
        return traced.graph.elements + traced.graph.size if traced is not None else 1_000_000

    def batched(self, chains: int, *, calls: int = 0, compile: bool | str = "auto") -> Batched:
        """Return value and gradient for this many chains; compiled where `calls` of it earn the compiler back."""
        traced, why_not = self._traced()
        if traced is None:
            return Batched(chains, "eager", why_not, loop(self.value_and_grad))
        example = self._points(chains, seed=2)
        try:
            batched = prepare(traced, self._tensors, example, compile, calls)
            if self._agrees(lambda x: _one_row(batched, x, example)):
                log.info("density of dimension %d runs by %s: %s", self.dim, batched.executor, batched.reason)
                return batched
            reason = "its batched graph differs from the program"
        except Exception as error:
            if out_of_memory(error) and chains > 1:
                batched = Batched(chains, "graph", "", loop(self.value_and_grad))
                self.divide(batched)
                return batched
            reason = f"it cannot be batched: {one_line(error)}"
        log.warning("%s; running the chains one by one, which is slow", reason)
        return Batched(chains, "graph", reason, loop(_single(traced.graph, self._tensors)))

    def divide(self, batched: Batched) -> None:
        """Evaluate these chains in twice as many parts as now, where memory does not hold them all."""
        parts = 2 * batched.parts
        sizes = {len(part) for part in torch.arange(batched.chains).tensor_split(parts)} - {0}
        pieces = {size: self.batched(size, compile=False) for size in sizes}

        def evaluate(x: Tensor) -> tuple[Tensor, Tensor]:
            found = [pieces[len(part)].once(part) for part in x.tensor_split(parts) if len(part)]
            return torch.cat([value for value, _ in found]), torch.cat([grad for _, grad in found])

        batched.divide(parts * max(piece.parts for piece in pieces.values()), evaluate)

    def constrain(self, x: Tensor) -> dict[str, Tensor]:
        """Return the sites' values at x, (..., dim): latent and computed ones, each (..., *site)."""
        found = self._sites()(x.reshape(-1, self.dim), self._tensors)
        return {name: value.reshape((*x.shape[:-1], *value.shape[1:])) for name, value in found.items()}

    def unconstrain(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return x, (dim,), of these site values."""
        with no_validation():
            return eager.unconstrain(self.program, self.layout, self.args, self.kwargs, values).detach()

    def start(self, chains: int, generator: torch.Generator, radius: float = 2.0, evaluate: Any = None) -> Tensor:
        """Return starts uniform in (-radius, radius), (chains, dim), each with a finite density, by `evaluate`.

        Raises: ValueError when a hundred tries find no such place.
        """
        batched, like = evaluate or self.batched(chains, compile=False), self._points(1, seed=0)

        def uniform() -> Tensor:
            u = torch.rand(chains, self.dim, generator=generator, dtype=like.dtype, device=like.device)
            return radius * (2 * u - 1)

        x = uniform()
        for _ in range(100):
            value, grad = batched(x)
            bad = ~(value.isfinite() & grad.isfinite().all(-1))
            if not bad.any():
                return x
            x = torch.where(bad[:, None], uniform(), x)
        raise ValueError("no start with a finite log density was found in 100 tries; check priors and data")

    @property
    def _tensors(self) -> list[Tensor]:
        return tensors_of(self.args, self.kwargs)

    @property
    def _eager(self) -> Callable[..., Tensor]:
        if "eager" not in self._made:
            self._made["eager"] = eager.log_density(self.program, self.layout, self.jacobian)
        return self._made["eager"]

    def _value_and_grad(self, x: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """The function that is traced: the program's tensors are inputs, so that new data need no new trace."""
        args, kwargs = rebuild(self.args, self.kwargs, tensors)
        with torch.enable_grad(), no_validation():
            x = x.detach().requires_grad_()
            value = self._eager(x, args, kwargs)
            (grad,) = torch.autograd.grad(value, x)
        return value.detach(), grad

    def _sites(self) -> SiteMap:
        """The map from x to the sites' values, from an earlier trace where it still agrees."""
        if "sites" not in self._made:
            traced = self._made["traced"][0] if "traced" in self._made else _traces.get(self._key())
            points = self._points(3, seed=6)
            found = traced.sites if traced is not None else None
            if not isinstance(found, SiteMap) or not found.agrees(points, self._tensors):
                found = site_map(self.program, self.layout, self.args, self.kwargs, points)
            if traced is not None:
                traced.sites = found
            self._made["sites"] = found
        return self._made["sites"]

    def _traced(self) -> tuple[Traced | None, str]:
        """The traced program, from an earlier trace of the same program where it still agrees; or why not."""
        if "traced" not in self._made:
            key = self._key()
            traced, why_not = _traces.get(key), ""
            if traced is None or not self._agrees(_single(traced.graph, self._tensors)):
                traced, why_not = self._trace()
            if traced is None:
                log.warning("the program cannot be traced (%s); running it as it is, which is slow", why_not)
            else:
                _traces[key] = traced
                while len(_traces) > KEPT:
                    _traces.popitem(last=False)
            self._made["traced"] = traced, why_not
        return self._made["traced"]

    def _trace(self) -> tuple[Traced | None, str]:
        try:
            graph = trace(self._value_and_grad, [self._points(1, seed=1)[0]], self._tensors)
        except Exception as error:
            return None, f"tracing failed: {one_line(error)}"
        if not self._agrees(_single(graph, self._tensors)):
            return None, "the traced graph differs from the program: a branch depends on a value"
        return Traced(graph), ""

    def _agrees(self, function: Callable[[Tensor], tuple[Tensor, Tensor]]) -> bool:
        """Are value and gradient those of the program at fresh points?"""
        pairs = ((function(x), self.value_and_grad(x)) for x in self._points(4, seed=3))
        return all(close(ours, truth) for pair in pairs for ours, truth in zip(*pair, strict=True))

    def _points(self, number: int, seed: int) -> Tensor:
        """Points of growing distance from zero, (number, dim), the same in every run."""
        generator = torch.Generator().manual_seed(seed)
        radius = torch.linspace(0.1, 2.0, number, dtype=torch.float64)[:, None] if number > 1 else 0.5
        x = radius * torch.randn(number, self.dim, generator=generator, dtype=torch.float64)
        return x.to(dtype=torch.get_default_dtype(), device=self.device)

    def _refuse_randomness(self) -> None:
        x = self._points(1, seed=4)[0]
        first, second = self.log_prob(x), self.log_prob(x)
        if not torch.equal(first, second) and not (first.isnan() and second.isnan()):
            raise Unsupported(
                "two evaluations of the density at one point differ: the model draws random numbers of its own "
                "(a subsampled plate, dropout, or torch.randn outside pyro.sample); only svi can fit it"
            )

    def _key(self) -> Any:
        return getattr(self.program, "key", self.program), self.jacobian, *fingerprint(self.args, self.kwargs)


def _single(graph: Any, data: Sequence[Tensor]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    constants = graph.fixed(*data)
    return lambda x: graph.varying(x, *constants)


def _one_row(batched: Batched, x: Tensor, example: Tensor) -> tuple[Tensor, Tensor]:
    value, grad = batched.once(torch.cat([x[None], example[1:]]))
    return value[0], grad[0]
