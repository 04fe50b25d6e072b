"""How a density is run over a batch of chains: compiled, replayed from its traced graph, or eagerly one by one."""

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from inference.density.graph import Graph, batch, trace

log = logging.getLogger("inference")

ValueAndGrad = Callable[[Tensor], tuple[Tensor, Tensor]]

# What an operation, an element and a compilation cost on one core, in seconds. They only decide whether to
# compile; they are constants, not measured anew in every run, so that the same seed gives the same draws.
REPLAY_AN_OPERATION = 3.5e-6
REPLAY_AN_ELEMENT = 1.5e-9
COMPILED_CALL = 30e-6
COMPILED_SHARE = 0.25
COMPILE = 2.0
COMPILE_AN_OPERATION = 10e-3
TOO_MANY_OPERATIONS = 1500  # inductor's time grows faster than the graph; beyond this it does not end


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
    _compiled: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p, (C,), and its gradient, (C, dim)."""
        if self.executor == "eager":
            return self._evaluate(x)
        x = chains_innermost(x)
        if self.executor == "graph":
            return self._evaluate(x, *self._constants)
        return self._run("value_and_grad", lambda evaluate, q: evaluate(q), (x,))

    def fuse(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Return step(*tensors) = function(self, *tensors), as one compiled graph where there is a compiler.

        function must be made of tensor operations alone: it is traced once for each set of shapes.
        """
        if self.executor != "inductor":
            return lambda *tensors: function(self, *tensors)
        return lambda *tensors: self._run(name, function, tensors)

    def _run(self, name: str, function: Callable[..., Any], tensors: Sequence[Tensor]) -> Any:
        if name not in self._compiled:
            self._compiled[name] = self._compile(function, tensors)
        compiled, constants = self._compiled[name]
        return compiled(*tensors, *constants)

    def _compile(
        self, function: Callable[..., Any], tensors: Sequence[Tensor]
    ) -> tuple[Any, tuple[Tensor, ...]]:
        width = len(tensors)

        def whole(*inputs: Tensor) -> Any:
            constants = inputs[width:]
            return function(lambda q: self._evaluate(q, *constants), *inputs[:width])

        with torch.no_grad():
            graph = trace(whole, tensors, self._constants)
            constants = graph.fixed(*self._constants)
            return compile_graph(graph.varying, [*tensors, *constants]), constants


def chains_innermost(x: Tensor) -> Tensor:
    """The same (C, ...) tensor, stored with the chains side by side, as batched graphs read and write it."""
    return x if x.stride(0) == 1 else x.movedim(0, -1).contiguous().movedim(-1, 0)


def compile_graph(module: fx.GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Any]:
    """Compile by inductor, single-threaded, so that results do not depend on the number of cores."""
    import torch._inductor as inductor  # two seconds to import: only when something is compiled
    import torch._inductor.config as config

    options = {"compile_threads": 1, "cpp.threads": 1, "fx_graph_cache": True}
    with config.patch(options), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return inductor.compile(module, list(inputs))


def worth_compiling(graph: Graph, calls: int) -> tuple[bool, str]:
    """Is the time that a compiler saves over so many calls more than it takes?"""
    if graph.size > TOO_MANY_OPERATIONS:
        return False, f"{graph.size} operations are more than the compiler takes in reasonable time"
    replay = graph.size * REPLAY_AN_OPERATION + graph.elements * REPLAY_AN_ELEMENT
    compiled = COMPILED_CALL + COMPILED_SHARE * graph.elements * REPLAY_AN_ELEMENT
    saved, cost = calls * (replay - compiled), COMPILE + graph.size * COMPILE_AN_OPERATION
    verb = "earn back" if saved > cost else "would not earn back"
    return saved > cost, f"{calls} calls {verb} {cost:.0f} s of compiling"


def prepare(
    graph: Graph | None,
    single: Callable[[Tensor], tuple[Tensor, Tensor]],
    data: Sequence[Tensor],
    example: Tensor,
    compile: bool | str,
    calls: int,
    why_not: str,
) -> Batched:
    """Choose how to run value and gradient over the chains of `example`, (C, dim)."""
    chains = len(example)
    if graph is None:
        return Batched(chains, "eager", why_not, loop(single))
    with torch.no_grad():
        try:
            example = chains_innermost(example)
            whole = batch(graph, [example], data)
        except Exception as error:
            return Batched(chains, "eager", f"it cannot be batched: {_line(error)}", loop(single))
        if whole.size > 4 * graph.size + 100:
            reason = f"batching unrolled it from {graph.size} to {whole.size} operations"
            return Batched(chains, "graph", reason, loop(lambda x: graph.varying(x, *graph.fixed(*data))))
        constants = whole.fixed(*data)
    yes, reason = worth_compiling(whole, calls) if compile == "auto" else (bool(compile), "asked for")
    batched = Batched(chains, "graph", reason, whole.varying, constants)
    if not yes:
        return batched
    batched.executor = "inductor"
    try:
        batched(example)
    except Exception as error:
        log.warning("inductor refused the graph (%s); replaying it instead", _line(error))
        return Batched(chains, "graph", f"inductor refused it: {_line(error)}", whole.varying, constants)
    return batched


def loop(single: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, Tensor]]:
    """Chains one after the other."""

    def evaluate(x: Tensor) -> tuple[Tensor, Tensor]:
        pairs = [single(row) for row in x]
        return torch.stack([value for value, _ in pairs]), torch.stack([grad for _, grad in pairs])

    return evaluate


def _line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:160]}" if text else type(error).__name__
