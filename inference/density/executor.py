"""How a density is run over a batch of chains: compiled, replayed from its traced graph, or eagerly one by one."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from inference.density.compiler import Compiled, compile_graph, worth_compiling
from inference.density.graph import Graph, batch, trace
from inference.density.resident import NotResident

log = logging.getLogger("inference")

ValueAndGrad = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass
class Batched:
    """log p and its gradient for a fixed number of chains: x (C, dim) -> (C,), (C, dim).

    executor: "inductor", "graph" or "eager". reason: why that one, in one line.
    """

    chains: int
    executor: str
    reason: str
    _evaluate: Callable[..., tuple[Tensor, Tensor]] = field(repr=False)
    _constants: tuple[Tensor, ...] = field(default=(), repr=False)
    parts: int = 1  # in how many the chains are evaluated
    _shared: dict[Any, Any] = field(default_factory=dict, repr=False)  # compiled, for any data of these shapes
    _bound: dict[Any, Any] = field(default_factory=dict, repr=False)  # the same, for these data
    _loops: dict[Any, Any] = field(default_factory=dict, repr=False)  # the same, step after step

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p, (C,), and its gradient, (C, dim)."""
        x = chains_innermost(x)
        return self._run(_density_alone, (x,)) if self.executor == "inductor" else self.once(x)

    def once(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The same, without the compiler: for the few calls that are not worth one."""
        return self._evaluate(chains_innermost(x), *self._constants)

    def replayed(self) -> "Batched":
        """The same by the traced graph, for calls too few to compile this function alone."""
        return replace(self, executor="graph") if self.executor == "inductor" else self

    def fuse(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return step(*tensors) = function(value_and_grad, *tensors), one compiled graph where there is a compiler.

        function must be made of tensor operations alone: it is traced once for each set of shapes.
        """
        if self.executor != "inductor":
            return lambda *tensors: function(self.once, *tensors)
        return lambda *tensors: (
            self._run(function, tensors) if self.executor == "inductor" else function(self.once, *tensors)
        )

    def repeat(self, function: Callable[..., Any], carried: int) -> Callable[..., Any]:
        """Return run(times, *tensors): function(value_and_grad, *tensors) so many times, one compiled step where fused.

        The first `carried` results of a step are the first arguments of the next; the others stay.
        The results are read before the next run, which may overwrite them.
        """
        once = self.fuse(function)

        def step_by_step(times: int, *tensors: Tensor) -> Any:
            found = once(*tensors)
            for _ in range(times - 1):
                found = once(*found[:carried], *tensors[carried:])
            return found

        def run(times: int, *tensors: Tensor) -> Any:
            if self.executor != "inductor":
                return step_by_step(times, *tensors)
            key = _key(function, tensors)
            if key not in self._loops:
                self._loops[key] = self._loop(key, carried, tensors, step_by_step)
            return self._loops[key](times, *tensors)

        return run

    def divide(self, parts: int, evaluate: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        """From now on evaluate the chains in so many parts, by this function, also in steps that are fused already."""
        self.executor, self.reason = "graph", f"memory holds 1/{parts} of the chains"
        self.parts, self._evaluate, self._constants = parts, evaluate, ()

    def _run(self, function: Callable[..., Any], tensors: Sequence[Tensor]) -> Any:
        key = _key(function, tensors)
        if key not in self._bound:
            self._bound[key] = self._bind(key, function, tensors)
        return self._bound[key](*tensors)

    def _loop(self, key: Any, carried: int, tensors: Sequence[Tensor], step_by_step: Any) -> Callable[..., Any]:
        """The compiled step in memory of its own, where it can be had and does just what the compiled step does."""
        truth = step_by_step(3, *tensors)
        bound = self._bound.get(key)
        if not isinstance(bound, _Bound):
            return step_by_step
        try:
            resident = bound.compiled.repeated([*tensors, *bound.constants], carried)
            if not all(map(_same, resident(3, *tensors, *bound.constants), truth)):
                raise NotResident("its results differ")
        except Exception as error:  # what is merely faster must not end a run
            log.info("steps are called one by one: %s", one_line(error))
            return step_by_step
        return lambda times, *inputs: resident(times, *inputs, *bound.constants)

    def _bind(self, key: Any, function: Callable[..., Any], tensors: Sequence[Tensor]) -> Callable[..., Any]:
        """The compiled function; or the replayed one, once and for all, where the compiler fails or errs."""
        width = len(tensors)

        def whole(*inputs: Tensor) -> Any:
            return function(lambda q: self._evaluate(q, *inputs[width:]), *inputs[:width])

        truth = whole(*tensors, *self._constants)
        try:
            with torch.no_grad():
                if key not in self._shared:
                    apart = [tensor.detach() for tensor in tensors]  # one tensor given twice is two inputs
                    graph = trace(whole, apart, self._constants)
                    example = [*apart, *graph.fixed(*self._constants)]
                    self._shared[key] = graph.fixed, compile_graph(graph.varying, example)
                fixed, compiled = self._shared[key]
                constants = fixed(*self._constants)
            if all(map(close, pytree.tree_leaves(compiled(*tensors, *constants)), pytree.tree_leaves(truth))):
                return _Bound(compiled, constants)
            why = "its result differs from the graph's"
        except Exception as error:
            why = one_line(error)
        log.warning("not compiled: %s; replaying the traced graph instead", why)
        self.executor, self.reason = "graph", f"the compiler failed: {why}"
        return lambda *inputs: function(self.once, *inputs)


@dataclass
class _Bound:
    """A compiled function and what depends on the data alone."""

    compiled: Compiled
    constants: tuple[Tensor, ...]

    def __call__(self, *inputs: Tensor) -> Any:
        return self.compiled(*inputs, *self.constants)


@dataclass
class Traced:
    """A program's graph, and what was made of it for numbers of chains: it serves all data of the same shapes."""

    graph: Graph
    batches: dict[int, tuple[Graph, dict[Any, Any]]] = field(default_factory=dict)
    sites: Any = None  # the map from x to site values, traced likewise


def prepare(traced: Traced, data: Sequence[Tensor], example: Tensor, compile: bool | str, calls: int) -> Batched:
    """Choose how to run a traced value and gradient over the chains of `example`, (C, dim).

    Raises: whatever batching raises.
    """
    chains, example, graph = len(example), chains_innermost(example), traced.graph
    with torch.no_grad():
        if chains not in traced.batches:
            traced.batches[chains] = batch(graph, [example], data), {}
        whole, shared = traced.batches[chains]
        constants = whole.fixed(*data)
    if whole.size > 10 * graph.size + 200:  # written-out factorisations are some of it
        reason = f"batching unrolled it from {graph.size} to {whole.size} operations"
        fixed = graph.fixed(*data)
        return Batched(chains, "graph", reason, loop(lambda x: graph.varying(x, *fixed)))
    yes, reason = bool(compile), "asked for"
    if compile == "auto":
        yes, reason = worth_compiling(whole.size, whole.elements, calls)
    return Batched(chains, "inductor" if yes else "graph", reason, whole.varying, constants, _shared=shared)


def loop(single: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Chains one after the other; a point where the program raises an arithmetic error has density nan."""

    def evaluate(x: Tensor) -> tuple[Tensor, Tensor]:
        pairs = []
        for row in x:
            try:
                pairs.append(single(row))
            except (torch.linalg.LinAlgError, ValueError):
                pairs.append((torch.full_like(row[0], torch.nan), torch.full_like(row, torch.nan)))
        return torch.stack([value for value, _ in pairs]), torch.stack([grad for _, grad in pairs])

    return evaluate


def chains_innermost(x: Tensor) -> Tensor:
    """The same (C, ...) tensor, stored with the chains side by side, as batched graphs read and write it."""
    return x if x.stride(0) == 1 else x.movedim(0, -1).contiguous().movedim(-1, 0)


def close(ours: Tensor, truth: Tensor) -> bool:
    """Equal up to the rounding of another order of operations."""
    tolerance = 1e-6 if truth.dtype == torch.float64 else 1e-2
    return torch.allclose(ours, truth, rtol=tolerance, atol=tolerance, equal_nan=True)


def out_of_memory(error: BaseException) -> bool:
    """Is it that memory did not suffice?"""
    said = isinstance(error, RuntimeError) and "allocate memory" in str(error)
    return said or isinstance(error, (MemoryError, torch.OutOfMemoryError))


def one_line(error: BaseException) -> str:
    """An error's type and the first line of what it says; torch's own words for a branch while tracing in ours."""
    if "out of a tracing tensor" in str(error):
        return "a branch depends on a value"
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:160]}" if text else type(error).__name__


def _same(ours: Tensor, truth: Tensor) -> bool:
    """The same bits, nan for nan."""
    return torch.allclose(ours, truth, rtol=0.0, atol=0.0, equal_nan=True)


def _key(function: Callable[..., Any], tensors: Sequence[Tensor]) -> Any:
    """What a compiled function is made for."""
    return function, *((t.shape, t.stride()) for t in tensors)


def _density_alone(value_and_grad: ValueAndGrad, x: Tensor) -> tuple[Tensor, Tensor]:
    return value_and_grad(x)
