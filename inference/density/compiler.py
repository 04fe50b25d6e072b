"""Compiling a traced graph: the only file that talks to torch's inductor."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from inference.density.resident import NotResident, Resident

# What an operation, an element and a compilation cost on one core, in seconds. They only decide whether to
# compile; they are constants, not measured anew in every run, so that the same seed gives the same draws.
REPLAY_AN_OPERATION = 3.5e-6
REPLAY_AN_ELEMENT = 1.5e-9
COMPILED_CALL = 10e-6
COMPILED_SHARE = 0.25
COMPILE = 0.15  # an eighth of the first time's cost: artefacts stay on disk, and a model is run again and again
COMPILE_AN_OPERATION = 4e-3
TOO_MANY_OPERATIONS = 1500  # inductor's time grows faster than the graph


class Compiled:
    """A compiled graph: tensors in, a tuple of tensors out (or the one tensor that the graph returns)."""

    def __init__(self, graph: Any, single: bool) -> None:
        self._graph, self._single = graph, single

    def __call__(self, *tensors: Tensor) -> Any:
        found = self._graph(list(tensors))
        return found[0] if self._single else found

    def repeated(self, inputs: Sequence[Tensor], carried: int) -> Resident:
        """The same step after step in one place, see `Resident`.

        Raises: NotResident.
        """
        if self._single or any(tensor.device.type != "cpu" for tensor in inputs):
            raise NotResident("it returns a single tensor, or is not on the CPU")
        return Resident(self._graph.current_callable, inputs, carried)


def compile_graph(module: fx.GraphModule, inputs: Sequence[Tensor]) -> Compiled:
    """Compile a graph of plain tensor operations for inputs of these shapes and strides, which are not checked again.

    Single-threaded, so that results do not depend on the number of cores. Artefacts are kept on disk by
    inductor, so a later process compiles nothing. The graph is functional and free of autograd, so the
    inner compiler is enough; going through `torch.compile` would cost 15 microseconds more in each call.
    """
    with warnings.catch_warnings():  # two seconds to import: only when something is compiled
        warnings.simplefilter("ignore")
        import torch._inductor.config as config
        from torch._inductor.compile_fx import compile_fx_inner
        from torch._inductor.decomposition import select_decomp_table
        from torch._inductor.virtualized import V
        from torch._subclasses.fake_tensor import FakeTensorMode

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fake = [mode.from_tensor(tensor) for tensor in inputs]
    options = {"compile_threads": 1, "cpp.threads": 1, "fx_graph_cache": True}
    options |= {"size_asserts": False, "alignment_asserts": False, "scalar_asserts": False}  # the callers know shapes
    with config.patch(options), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        with mode:
            graph = make_fx(module, decomposition_table=select_decomp_table())(*fake)
        with V.set_fake_mode(mode):
            compiled = compile_fx_inner(graph, fake)
        result = compiled(list(inputs))  # the C++ is loaded at the first call
    return Compiled(compiled, isinstance(result, Tensor))


def worth_compiling(operations: int, elements: int, calls: int) -> tuple[bool, str]:
    """Is the time that a compiler saves over so many calls more than it takes? And why, in one line."""
    if operations > TOO_MANY_OPERATIONS:
        return False, f"{operations} operations are more than the compiler takes in reasonable time"
    replay = operations * REPLAY_AN_OPERATION + elements * REPLAY_AN_ELEMENT
    compiled = COMPILED_CALL + COMPILED_SHARE * elements * REPLAY_AN_ELEMENT
    saved, cost = calls * (replay - compiled), COMPILE + operations * COMPILE_AN_OPERATION
    verb = "earn back" if saved > cost else "would not earn back"
    return saved > cost, f"{calls} calls {verb} {cost:.0f} s of compiling"
