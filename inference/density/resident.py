"""A compiled step taken again and again in the same memory: its kernels alone, without what surrounds them.

The function that inductor writes checks its inputs, makes room for results, and starts its kernels. For a small
model the kernels are a tenth of that. Here the function is run once with room that stays, what it starts is written
down, and from then on only that is started: results of one step are read where they lie by the next.
"""

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

Launch = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class NotResident(Exception):
    """The compiled function does what cannot be repeated in place; the message says what."""


class Resident:
    """Repeat (first, *others) -> outputs, of which the first `carried` are the next step's first inputs.

    step: a compiled function of tensors on the CPU. inputs: an example of all its inputs.
    Raises: NotResident.
    """

    def __init__(self, step: Callable[..., Any], inputs: Sequence[Tensor], carried: int) -> None:
        self.inputs, self.carried = [_like(tensor) for tensor in inputs], carried
        even, odd = _Memory(), _Memory()
        others = self.inputs[carried:]
        first, self.first = _record(step, self.inputs, even)
        second, self.odd = _record(step, [*first[:carried], *others], odd)
        again, self.even = _record(step, [*second[:carried], *others], even)
        if [_place(t) for t in again] != [_place(t) for t in first]:
            raise NotResident("its results lie elsewhere in every call")
        if any(_form(a) != _form(b) for a, b in zip(first[:carried], inputs[:carried], strict=True)):
            raise NotResident("a result is not stored as the input that it becomes")
        room = {t.untyped_storage().data_ptr() for memory in (even, odd) for t in memory.tensors}
        if any(t.untyped_storage().data_ptr() not in room for t in (*first, *second)):
            raise NotResident("a result is one of its inputs")
        self.results, self.last = (tuple(second), tuple(first)), [None] * len(inputs)

    def __call__(self, times: int, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs after so many steps, at least one. The next call overwrites them."""
        for i, (room, tensor) in enumerate(zip(self.inputs, inputs, strict=True)):
            if i < self.carried or tensor is not self.last[i]:
                _unexpanded(room).copy_(_unexpanded(tensor))
        self.last = [None] * self.carried + list(inputs[self.carried :])
        for run, args, named in self.first:
            run(*args, **named)
        for i in range(1, times):
            for run, args, named in self.odd if i % 2 else self.even:
                run(*args, **named)
        return self.results[times % 2]


class _Memory:
    """Room that is given out in the same order each time."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.given = 0

    def __call__(self, size: Any, stride: Any, dtype: torch.dtype) -> Tensor:
        if self.given == len(self.tensors):
            self.tensors.append(torch.empty_strided(size, stride, dtype=dtype))
        self.given += 1
        return self.tensors[self.given - 1]

    def keep(self, made: Any) -> Any:
        """Room for what an operation makes by itself; its own on the first time."""
        if not isinstance(made, Tensor):
            raise NotResident("an operation returns several tensors")
        return self(made.shape, made.stride(), made.dtype).copy_(made)


def _record(step: Callable[..., Any], inputs: Sequence[Tensor], memory: _Memory) -> tuple[list[Tensor], list[Launch]]:
    """The function's outputs, with all room from this memory, and all that it starts, in order."""
    launches: list[Launch] = []
    memory.given = 0
    original = getattr(step, "__func__", step)
    names = original.__globals__
    ours = dict(names)
    for name in set(original.__code__.co_names) & names.keys():
        if name == "empty_strided_cpu":
            ours[name] = memory
        elif name.startswith("cpp_fused"):
            ours[name] = _kernel(names[name], launches)
        elif name in ("torch", "aten", "extern_kernels"):
            ours[name] = _Operations(names[name], launches, memory)
        elif name != "reinterpret_tensor" and not name.startswith(("assert_", "_frozen_param", "constant")):
            raise NotResident(f"it uses {name}")
    own = FunctionType(original.__code__, ours, original.__name__, original.__defaults__, original.__closure__)
    bound = (getattr(step, "__self__", None),) if original is not step else ()
    return list(own(*bound, list(inputs))), launches


def _kernel(kernel: Callable[..., Any], launches: list[Launch]) -> Callable[..., Any]:
    def launch(*args: Any) -> None:
        kernel(*args)
        launches.append((kernel, args, {}))

    return launch


class _Operations:
    """A namespace of operations that writes down which are run."""

    def __init__(self, names: Any, launches: list[Launch], memory: _Memory) -> None:
        self._names, self._launches, self._memory = names, launches, memory

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._names, name)
        return found if isinstance(found, torch.dtype) else _Operations(found, self._launches, self._memory)

    def __call__(self, *args: Any, **named: Any) -> Any:
        run = self._names
        made = run(*args, **named)
        if "out" in named:
            self._launches.append((run, args, named))
            return made
        room = self._memory.keep(made)
        self._launches.append((lambda *a, **k: room.copy_(run(*a, **k)), args, named))
        return room


def _like(tensor: Tensor) -> Tensor:
    """A copy that is stored in the same way."""
    room = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    _unexpanded(room).copy_(_unexpanded(tensor))
    return room


def _unexpanded(tensor: Tensor) -> Tensor:
    """All that is stored of a tensor, once: axes along which it is expanded have length one."""
    for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        tensor = tensor.narrow(axis, 0, 1) if size > 1 and stride == 0 else tensor
    return tensor


def _form(tensor: Tensor) -> Any:
    return tensor.shape, tensor.stride(), tensor.dtype


def _place(tensor: Tensor) -> Any:
    return tensor.data_ptr(), *_form(tensor)
