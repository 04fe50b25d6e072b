"""A density estimated from some of the rows, for many chains at once: other rows in every call, one graph for all.

    target = Minibatches.of(model, (data,), {}, chains=32, batch_size=100, calls=10_000)
    step = target.fuse(move)                    # move(value_and_grad, *tensors), compiled with what chooses the rows
    x, log_prob = step(index, x, noise)         # index (B,), or (C, B) where each chain has rows of its own

The estimate is unbiased: `Data.batch` remembers how many rows there are, and the model's plate scales them up.
"""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from inference.base import joint
from inference.density import Batched, Density
from inference.density.compiler import compile_graph, worth_compiling
from inference.density.executor import chains_innermost, close, loop, one_line
from inference.density.graph import Graph, batch, trace
from inference.density.inputs import tensors_of
from inference.density.some_rows import of_rows, rows_of
from inference.density.support import refuse_impossible_rows
from inference.training import processes
from ppmodels.base import Data

log = logging.getLogger("inference")

MANY = 16  # batches that are looked at one after the other for the density of all rows

ValueAndGrad = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass
class Minibatches:
    """log p and its gradient for a fixed number of chains, x (C, dim), from the rows of an index.

    density: that of one batch, or of all rows where batch_size is None. whole: the tensors of all rows.
    executor: "inductor", "graph" or "eager". reason: why that one.
    """

    density: Density
    chains: int
    batch_size: int | None
    own_rows: bool
    whole: list[Tensor]
    executor: str
    reason: str
    _evaluate: Callable[..., tuple[Tensor, Tensor]] = field(repr=False)
    _batched: Batched | None = field(default=None, repr=False)
    _compiled: dict[Any, Any] = field(default_factory=dict, repr=False)
    _everything: Callable[[], Batched] = field(default=lambda: _nothing(), repr=False)

    @classmethod
    def of(
        cls,
        model: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        chains: int,
        batch_size: int | None,
        own_rows: bool = False,
        jacobian: bool = True,
        calls: int = 0,
        compile: bool | str = "auto",
    ) -> "Minibatches":
        """Trace the model once for a batch of this size. Call it inside `inference.base.fresh`.

        Raises: Unsupported where rows cannot be taken apart: of a plain program, or with a latent a row.
        """
        program = joint(model, args, kwargs)
        if batch_size is None and not own_rows:
            density = Density.of(program, args, kwargs, jacobian=jacobian)
            batched = density.batched(chains, calls=calls, compile=compile)
            return cls(density, chains, None, False, [], batched.executor, batched.reason, batched.once, batched)
        data = rows_of(model, args, kwargs)
        size = _size(data.rows, batch_size) // processes.count()
        density = of_rows(program, data.batch(torch.arange(size, device=_device(data))), jacobian)
        refuse_impossible_rows(program, data, size)
        whole = tensors_of((Data(data.rows, data.given, data.observed),), {})
        evaluate, executor, reason, cost = _evaluator(density, chains, own_rows)
        if executor == "graph" and compile:
            yes, reason = worth_compiling(*cost, calls) if compile == "auto" else (True, "asked for")
            executor = "inductor" if yes else "graph"
        found = cls(density, chains, size, own_rows, whole, executor, reason, evaluate)
        found._everything = cache(lambda: Density.of(program, args, kwargs, jacobian=jacobian).batched(chains))
        return found

    def __call__(self, index: Tensor | None, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p, (C,), and its gradient, (C, dim), estimated from these rows; from all where index is None."""
        x = chains_innermost(x)
        return self._evaluate(x) if self.batch_size is None else self._evaluate(x, *_rows(self.whole, self._cut(index)))

    def everything(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p, (C,), and its gradient, (C, dim), of all rows."""
        if self.batch_size is None:
            return self(None, x)
        rows, device = len(self.whole[0]), self.whole[0].device
        if rows % self.batch_size or rows > MANY * self.batch_size:
            return self._everything().once(x)
        epoch = torch.arange(rows, device=device).split(self.batch_size)  # its mean is exact: no second graph is needed
        parts = [self(index.expand(self.chains, -1) if self.own_rows else index, x) for index in epoch]
        return torch.stack([value for value, _ in parts]).mean(0), torch.stack([grad for _, grad in parts]).mean(0)

    def fuse(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return step(index, *tensors) = function(value_and_grad, *tensors), compiled where that was chosen.

        function must be made of tensor operations alone. index: the rows of this step, of all processes together;
        under `torch.distributed` every process estimates from its share of them, and all go on with the mean.
        """
        if self._batched is not None:
            fused = self._batched.fuse(function)
            return lambda _, *tensors: fused(*tensors)
        if self.executor != "inductor" or processes.count() > 1:
            return lambda index, *tensors: function(lambda x: self.together(index, x), *tensors)
        return lambda index, *tensors: self._run(function, self._cut(index), tensors)

    def local(self, index: Tensor | None, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same as a call, compiled where that was chosen."""
        if self._batched is not None:
            return self._batched(x)
        if self.executor != "inductor":
            return self(index, x)
        return self._run(_alone, self._cut(index), (chains_innermost(x),))

    def together(self, index: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same as a call, each process having looked at its share of the rows."""
        mine, share = processes.share(index.mT if self.own_rows else index, 0)
        assert mine is not None
        value, grad = self(mine.mT if self.own_rows else mine, x)
        value, grad = (value, grad) if share == 1 else (value * share, (grad * share).contiguous())
        processes.add_up([value, grad])
        return value, chains_innermost(grad)

    def _cut(self, index: Tensor | None) -> Tensor:
        """As many rows as the graph takes: batches of an epoch differ by one, and which is left out is chance."""
        assert index is not None, "a step on some of the rows must say which"
        return index[..., : self.batch_size]

    def _run(self, function: Callable[..., Any], index: Tensor, tensors: tuple[Tensor, ...]) -> Any:
        key = function, index.shape, *((t.shape, t.stride()) for t in tensors)
        if key not in self._compiled:
            self._compiled[key] = self._bind(function, index, tensors)
        return self._compiled[key](index, *tensors)

    def _bind(self, function: Callable[..., Any], index: Tensor, tensors: tuple[Tensor, ...]) -> Callable[..., Any]:
        """The compiled step; or the replayed one, once and for all, where the compiler fails or errs."""

        def plain(index: Tensor, *inputs: Tensor) -> Any:
            return function(lambda x: self._evaluate(chains_innermost(x), *_rows(self.whole, index)), *inputs)

        def whole(index: Tensor, *inputs: Tensor) -> Any:
            width = len(tensors)
            rows = _rows(list(inputs[width:]), index)
            return function(lambda x: self._evaluate(chains_innermost(x), *rows), *inputs[:width])

        truth = plain(index, *tensors)
        try:
            with torch.no_grad():
                apart = [t.detach() for t in (index, *tensors, *self.whole)]
                graph = trace(whole, apart, [])
                rest = [*self.whole, *graph.fixed()]
                compiled = compile_graph(graph.varying, [*apart[: 1 + len(tensors)], *rest])
            if all(map(close, pytree.tree_leaves(compiled(index, *tensors, *rest)), pytree.tree_leaves(truth))):
                return lambda *inputs: compiled(*inputs, *rest)
            why = "its result differs from the graph's"
        except Exception as error:
            why = one_line(error)
        log.warning("not compiled: %s; replaying the traced graph instead", why)
        self.executor, self.reason = "graph", f"the compiler failed: {why}"
        return plain


def _alone(density: ValueAndGrad, x: Tensor) -> tuple[Tensor, Tensor]:
    return density(x)


def _nothing() -> Any:
    raise AssertionError("this density is of all rows already")


def _size(rows: int, batch_size: int | None) -> int:
    """Rows of the smallest batch of an epoch, when it is cut into batches of nearly equal size."""
    return rows if batch_size is None else rows // math.ceil(rows / min(batch_size, rows))


def _rows(whole: list[Tensor], index: Tensor) -> list[Tensor]:
    """The tensors of one batch, in the order in which `Data` is flattened: given, observed, index."""
    return [*(tensor[index] for tensor in whole), index]


def _device(data: Data) -> torch.device:
    return next(iter({**data.given, **data.observed}.values())).device


def _evaluator(density: Density, chains: int, own_rows: bool) -> tuple[Callable[..., Any], str, str, tuple[int, int]]:
    """value_and_grad(x, *rows) for all chains, how it runs, why, and its operations and elements."""
    traced, why_not = density._traced()
    tensors = density._tensors
    if traced is None:
        return _one_by_one(density._value_and_grad, own_rows), "eager", why_not, (0, 0)
    x = chains_innermost(density._points(chains, seed=2))
    with torch.no_grad():
        if own_rows:
            each = [tensor.expand(chains, *tensor.shape) for tensor in tensors]
            flat = trace(density._value_and_grad, [x[0], *tensors], [])
            graph = batch(flat, [x, *each], [])
        else:
            graph = batch(traced.graph, [x], tensors)
    return _replay(graph, own_rows), "graph", "", (graph.size, graph.elements)


def _replay(graph: Graph, own_rows: bool) -> Callable[..., tuple[Tensor, Tensor]]:
    if own_rows:
        constants = graph.fixed()
        return lambda x, *rows: graph.varying(x, *rows, *constants)
    return lambda x, *rows: graph.varying(x, *graph.fixed(*rows))


def _one_by_one(function: Callable[..., Any], own_rows: bool) -> Callable[..., tuple[Tensor, Tensor]]:
    def evaluate(x: Tensor, *rows: Tensor) -> tuple[Tensor, Tensor]:
        if not own_rows:
            return loop(lambda point: function(point, *rows))(x)
        pairs = [function(point, *(row[i] for row in rows)) for i, point in enumerate(x)]
        return torch.stack([value for value, _ in pairs]), torch.stack([grad for _, grad in pairs])

    return evaluate
