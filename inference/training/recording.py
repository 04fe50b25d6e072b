"""A loss and its gradient as a list of tensor operations: recorded once, then run without autograd or Python code."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from inference.density.compiler import compile_graph, worth_compiling
from inference.density.constants import inline_constants
from inference.density.forms import shape_of
from inference.density.graph import record

Tensors = Mapping[str, Tensor]


@dataclass
class Recorded:
    """The loss and its gradient of some rows, by the operations that they took the first time.

    Random numbers are drawn anew at every run. What depends on anything but rows, parameters and buffers, such
    as a number that the loss changes by itself, would stay as it was: do not record such a loss. One whose
    control flow depends on values cannot be recorded, and is computed as it is; so is one whose recording
    does not give the value and the gradient, from the same random state, that the loss gives; `reason` says so.

    parameters, buffers: what the loss reads, by name; a buffer may be overwritten by it. calls: how often it will
    be computed. compile: True compiles the operations, "auto" where so many calls earn the time back.
    """

    loss: Callable[[Tensor | None], Tensor]
    parameters: Callable[[], Tensors]
    buffers: Callable[[], Tensors] = dict
    calls: int = 1
    compile: bool | str = False
    reason: str = ""
    graphs: dict[torch.Size | None, Callable[..., Any]] = field(default_factory=dict)

    def __call__(self, rows: Tensor | None) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """Return the loss, (), and its gradient by parameter; None where it does not depend on one."""
        if self.reason:
            return self._eager(rows)
        shape = None if rows is None else rows.shape
        if shape not in self.graphs:
            self._record(rows)
            return self(rows)
        given = () if rows is None else (rows,)
        with torch.no_grad():
            value, *grads = self.graphs[shape](*given, *self.parameters().values(), *self.buffers().values())
        return value, tuple(grads)

    def refuse_change(self, rows: Tensor | None) -> None:
        """Compare with the loss once more.

        Raises: ValueError when it has changed since it was recorded.
        """
        graph = self.graphs.get(None if rows is None else rows.shape)
        if graph is None or self.reason:
            return
        before, random = {n: v.clone() for n, v in self.buffers().items()}, torch.get_rng_state()
        given = () if rows is None else (rows,)
        inputs = (*given, *self.parameters().values(), *self.buffers().values())
        try:
            with torch.no_grad():
                ours, _ = graph(*inputs)[0], self._reset(before, random)
                theirs = self.loss(rows)
        finally:
            self._reset(before, random)
        if bool(theirs.isfinite()) and not _near(ours, theirs):
            raise ValueError(
                "the loss changes by itself on the way, and was recorded: say record=False (compile=False)"
            )

    def _eager(self, rows: Tensor | None) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        value = self.loss(rows)
        return value.detach(), torch.autograd.grad(value, list(self.parameters().values()), allow_unused=True)

    def _record(self, rows: Tensor | None) -> None:
        given = () if rows is None else (rows,)

        @torch.enable_grad()
        def evaluate(*_: Tensor) -> tuple[Tensor | None, ...]:
            value, grads = self._eager(rows)
            return value, *grads

        before, random = {n: v.clone() for n, v in self.buffers().items()}, torch.get_rng_state()
        try:
            # The loss finds its parameters by itself: the tracer knows them again because they are the same objects.
            inputs = (*given, *self.parameters().values(), *self.buffers().values())
            module = inline_constants(record(evaluate, inputs))
            self._reset(before, random)
            graph = self._compiled(module, inputs)
            self._compare(graph, evaluate, inputs, before, random)
            self.graphs[None if rows is None else rows.shape] = graph
        except Exception as error:  # whatever a tracer may say of a program, the program itself still runs
            self.reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        finally:
            self._reset(before, random)

    def _compiled(self, module: fx.GraphModule, inputs: tuple[Tensor, ...]) -> Callable[..., Any]:
        """The operations compiled where that is wanted, on the CPU; else as they are."""
        nodes = [node for node in module.graph.nodes if node.op == "call_function"]
        elements = sum(torch.Size(shape_of(node) or ()).numel() for node in nodes)
        wanted = worth_compiling(len(nodes), elements, self.calls)[0] if self.compile == "auto" else self.compile
        if not wanted or any(tensor.device.type != "cpu" for tensor in inputs):
            return module
        from torch._inductor import config  # two seconds to import: only when something is compiled

        with config.patch(fallback_random=True):  # torch's own random numbers
            return compile_graph(module, inputs)

    @property
    def executor(self) -> str:
        """How the loss is computed: "recorded", "compiled", or "eager" and why."""
        if self.reason:
            return f"eager: {self.reason}"
        plain = all(isinstance(graph, fx.GraphModule) for graph in self.graphs.values())
        return "recorded" if plain else "compiled"

    def _compare(
        self, graph: Callable[..., Any], evaluate: Any, inputs: tuple[Tensor, ...], before: Tensors, random: Tensor
    ) -> None:
        """Raise unless the graph gives what the loss gives, and leaves the buffers and the random state alike."""
        found = []
        for compute in (graph, evaluate):
            self._reset(before, random)
            with torch.no_grad():
                values = [v if v is None else v.detach().clone() for v in compute(*inputs)]
            found.append([*values, *(b.clone() for b in self.buffers().values()), torch.get_rng_state()])
        for ours, theirs in zip(*found, strict=True):
            if (ours is None) != (theirs is None) or (ours is not None and not _near(ours, theirs)):
                raise ValueError("recorded operations give another value than the loss itself")

    def _reset(self, before: Tensors, random: Tensor) -> None:
        for name, value in self.buffers().items():
            with torch.no_grad():
                value.copy_(before[name])
        torch.set_rng_state(random)


def _near(one: Tensor, other: Tensor) -> bool:
    if not one.is_floating_point():
        return torch.equal(one, other)
    scale = max(float(other.detach().abs().max()), 1e-30) if other.numel() else 1.0
    return torch.allclose(one, other, rtol=0, atol=1e-4 * scale, equal_nan=True)
