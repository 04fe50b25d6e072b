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

import pyro
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from inference.base import Unsupported
from inference.density import program as eager
from inference.density.executor import Batched, loop, prepare
from inference.density.graph import Graph, batch, trace
from inference.density.program import Layout, Site
from ppmodels.base import Data

__all__ = ["Batched", "Density", "Layout", "Site"]

log = logging.getLogger("inference")

_traces: OrderedDict[Any, Graph] = OrderedDict()  # what was traced in this process, newest last
KEPT = 64


@dataclass(frozen=True)
class Density:
    """log p(latents, observed) of a Pyro program over unconstrained x, (dim,), with log |det Jacobian|.

    layout: the program's sites and their places in x.
    """

    layout: Layout
    program: Callable[..., Any] = field(repr=False)
    args: tuple[Any, ...] = field(repr=False)
    kwargs: Mapping[str, Any] = field(repr=False)
    _made: dict[Any, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls, program: Callable[..., Any], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> "Density":
        """Read the program's sites. Call it inside `inference.base.fresh`.

        Raises: Unsupported when a discrete site cannot be summed out, when there is nothing to infer, or
        when two evaluations at one point differ.
        """
        layout = eager.read_layout(program, tuple(args), kwargs or {})
        if not layout.sites:
            raise Unsupported("the model has no continuous latent site; there is nothing to infer")
        density = cls(layout, program, tuple(args), dict(kwargs or {}))
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
        with _no_validation():
            return self._eager(x, self.args, self.kwargs)

    def hessian(self, x: Tensor) -> Tensor:
        """Return the exact Hessian of log p at x, (dim, dim)."""
        hessian = torch.autograd.functional.hessian(self.log_prob, x.detach())
        return 0.5 * (hessian + hessian.mT)  # type: ignore[operator]

    def batched(self, chains: int, *, calls: int = 0, compile: bool | str = "auto") -> Batched:
        """Return value and gradient for this many chains; compiled where `calls` of it earn the compiler back."""
        graph, why_not = self._graph()
        example = self._points(chains, seed=2)
        single = self.value_and_grad
        batched = prepare(graph, single, self._tensors, example, compile, calls, why_not)
        if batched.executor != "eager" and not self._agrees(lambda x: _rows(batched, x, example)):
            reason = "its batched graph differs from the program"
            log.warning("%s; running the program itself, which is slow", reason)
            return Batched(chains, "eager", reason, loop(single))
        log.info("density of dimension %d runs by %s: %s", self.dim, batched.executor, batched.reason)
        return batched

    def constrain(self, x: Tensor) -> dict[str, Tensor]:
        """Return the sites' values at x, (..., dim): latent and computed ones, each (..., *site)."""
        flat, names = x.reshape(-1, self.dim), [site.name for site in self.layout.sites]
        values = self._values_of(flat)
        found = zip([*names, *self.layout.deterministic], values, strict=True)
        return {name: value.reshape(*x.shape[:-1], *value.shape[1:]) for name, value in found}

    def unconstrain(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return x, (dim,), of these site values."""
        with _no_validation():
            return eager.unconstrain(self.program, self.layout, self.args, self.kwargs, values).detach()

    def start(self, chains: int, generator: torch.Generator, radius: float = 2.0) -> Tensor:
        """Return starts uniform in (-radius, radius), (chains, dim), each with a finite density.

        Raises: ValueError when a hundred tries find no such place.
        """
        batched = self.batched(chains, compile=False)
        like = self._points(1, seed=0)

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
        leaves, _ = pytree.tree_flatten((self.args, self.kwargs))
        return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    @property
    def _eager(self) -> Callable[..., Tensor]:
        if "eager" not in self._made:
            self._made["eager"] = eager.log_density(self.program, self.layout)
        return self._made["eager"]

    def _value_and_grad(self, x: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """The function that is traced: the program's tensors are inputs, so that new data need no new trace."""
        args, kwargs = self._rebuild(tensors)
        with torch.enable_grad(), _no_validation():
            x = x.detach().requires_grad_()
            value = self._eager(x, args, kwargs)
            (grad,) = torch.autograd.grad(value, x)
        return value.detach(), grad

    def _rebuild(self, tensors: Sequence[Tensor]) -> tuple[Any, Any]:
        leaves, spec = pytree.tree_flatten((self.args, self.kwargs))
        new = iter(tensors)
        return pytree.tree_unflatten([next(new) if isinstance(v, Tensor) else v for v in leaves], spec)

    def _values_of(self, x: Tensor) -> tuple[Tensor, ...]:
        """Sites' values for every row of x, batched by the traced graph where that can be had."""
        function = eager.constrained(self.program, self.layout)

        def values(row: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
            with torch.no_grad(), _no_validation():
                return function(row, *self._rebuild(tensors))

        by_hand = [values(row, *self._tensors) for row in x[:3]]
        try:
            mapped = torch.func.vmap(values, in_dims=(0, *(None for _ in self._tensors)))
            with torch.no_grad():
                result = mapped(x, *self._tensors)
            if all(
                torch.allclose(a[:3], torch.stack(b), equal_nan=True)
                for a, b in zip(result, zip(*by_hand, strict=True), strict=True)
            ):
                return result
        except Exception as error:
            log.info("sites are computed draw by draw: %s", error)
        rest = [values(row, *self._tensors) for row in x[3:]]
        return tuple(torch.stack(each) for each in zip(*by_hand, *rest, strict=True))

    def _graph(self) -> tuple[Graph | None, str]:
        """The traced graph, from an earlier trace of the same program where it still agrees."""
        if "graph" in self._made:
            return self._made["graph"]
        key = self._key()
        found: tuple[Graph | None, str] = (None, "")
        if key in _traces and self._agrees(_single(_traces[key], self._tensors)):
            found = _traces[key], ""
        else:
            found = self._trace()
            if found[0] is not None:
                _traces[key] = found[0]
                while len(_traces) > KEPT:
                    _traces.popitem(last=False)
        if found[0] is None:
            log.warning("the program cannot be traced (%s); running it as it is, which is slow", found[1])
        self._made["graph"] = found
        return found

    def _trace(self) -> tuple[Graph | None, str]:
        try:
            graph = trace(self._value_and_grad, [self._points(1, seed=1)[0]], self._tensors)
        except Exception as error:
            return None, f"tracing failed: {type(error).__name__}: {str(error).splitlines()[0][:160]}"
        if not self._agrees(_single(graph, self._tensors)):
            return None, "the traced graph differs from the program: a branch depends on a value"
        return graph, ""

    def _agrees(self, function: Callable[[Tensor], tuple[Tensor, Tensor]]) -> bool:
        """Are value and gradient those of the program at fresh points?"""
        for x in self._points(4, seed=3):
            for ours, truth in zip(function(x), self.value_and_grad(x), strict=True):
                tolerance = 1e-6 if truth.dtype == torch.float64 else 1e-2
                if not torch.allclose(ours, truth, rtol=tolerance, atol=tolerance, equal_nan=True):
                    return False
        return True

    def _points(self, number: int, seed: int) -> Tensor:
        """Points of growing distance from zero, (number, dim), the same in every run."""
        generator = torch.Generator().manual_seed(seed)
        radius = torch.linspace(0.1, 2.0, number, dtype=torch.float64)[:, None] if number > 1 else 0.5
        x = radius * torch.randn(number, self.dim, generator=generator, dtype=torch.float64)
        device = self._tensors[0].device if self._tensors else "cpu"
        return x.to(dtype=torch.get_default_dtype(), device=device)

    def _refuse_randomness(self) -> None:
        x = self._points(1, seed=4)[0]
        first, second = self.log_prob(x), self.log_prob(x)
        if not torch.equal(first, second) and not (first.isnan() and second.isnan()):
            raise Unsupported(
                "two evaluations of the density at one point differ: the model draws random numbers of its own "
                "(a subsampled plate, dropout, or torch.randn outside pyro.sample); only svi can fit it"
            )

    def _key(self) -> Any:
        leaves, spec = pytree.tree_flatten((self.args, self.kwargs))
        kinds = tuple((v.shape, v.dtype, v.device) if isinstance(v, Tensor) else repr(v) for v in leaves)
        return getattr(self.program, "key", self.program), str(spec), kinds, torch.get_default_dtype()


def _single(graph: Graph, data: Sequence[Tensor]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    constants = graph.fixed(*data)
    return lambda x: graph.varying(x, *constants)


def _rows(batched: Batched, x: Tensor, example: Tensor) -> tuple[Tensor, Tensor]:
    """One row through a batch."""
    value, grad = batched(torch.cat([x[None], example[1:]]))
    return value[0], grad[0]


class _no_validation:
    """Pyro's and torch's argument checks off: they branch on values, which a trace would freeze."""

    def __enter__(self) -> None:
        self.before = torch.distributions.Distribution._validate_args
        self.pyro = pyro.infer.util.is_validation_enabled()
        pyro.enable_validation(False)
        torch.distributions.Distribution.set_default_validate_args(False)

    def __exit__(self, *_: object) -> None:
        pyro.enable_validation(self.pyro)
        torch.distributions.Distribution.set_default_validate_args(self.before)


def _flatten_data(data: Data) -> tuple[list[Any], Any]:
    names = tuple(data.given), tuple(data.observed)
    return [dict(data.given), dict(data.observed), data.index], (data.rows, names, data.coords)


def _unflatten_data(values: Any, context: Any) -> Data:
    given, observed, index = values
    return Data(context[0], given, observed, index, context[2])


if Data not in pytree.SUPPORTED_NODES:
    pytree.register_pytree_node(
        Data, _flatten_data, _unflatten_data, serialized_type_name="ppmodels.base.Data"
    )
