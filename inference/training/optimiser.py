"""One optimiser over parameters that it knows by name: groups, clipping, scaled losses, and all of it to disk."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from inference.training import processes

Groups = Sequence[Mapping[str, Any]] | Callable[[str], Mapping[str, Any]] | None
FUSED = functools.partial(torch.optim.Adam, fused=True)  # all in one call: several times faster for small tensors


@dataclass
class Optimiser:
    """Steps down the gradient.

    make: any class of `torch.optim`. groups: lists of parameters with their options, as `make` takes them, or
    a function from a parameter's name to its options. clip: largest norm of the gradient.
    scaler: of losses whose gradients would vanish in half precision.
    """

    make: Callable[..., torch.optim.Optimizer]
    lr: float
    groups: Groups = None
    clip: float = math.inf
    scaler: torch.amp.GradScaler | None = None
    names: dict[str, Tensor] = field(default_factory=dict)
    own: torch.optim.Optimizer | None = None

    def know(self, parameters: Mapping[str, Tensor]) -> bool:
        """Take in parameters that are new; return whether there were any.

        Raises: ValueError when a group holds a tensor that is no parameter, or a parameter is in no group.
        """
        new = {name: value for name, value in parameters.items() if name not in self.names}
        if not new:
            return False
        self.names |= new
        groups = self._grouped(new)
        for group in groups:
            group["first_lr"] = group.setdefault("lr", self.lr)
        if self.own is None:
            self.own = self.make(groups, lr=self.lr)
        else:
            for group in groups:
                self.own.add_param_group(group)
        return True

    def step(self, loss: Tensor, rate: float) -> None:
        """Go down the gradient of the loss, which is this process's share of it."""
        if self.own is None or not loss.requires_grad:
            return
        self.own.zero_grad(set_to_none=True)
        (self.scaler.scale(loss) if self.scaler else loss).backward()
        self.descend(rate)

    def descend(self, rate: float) -> None:
        """Take the step, with the gradients as they lie in the parameters."""
        assert self.own is not None
        if processes.count() > 1:  # a process without a gradient, as of an expert not asked, sends zeros
            for parameter in self.names.values():
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            processes.add_up([p.grad for p in self.names.values() if p.grad is not None])
        for group in self.own.param_groups:
            group["lr"] = group["first_lr"] * rate
        if self.scaler is not None:
            self.scaler.unscale_(self.own)
        if self.clip < math.inf:
            torch.nn.utils.clip_grad_norm_(list(self.names.values()), self.clip)
        if self.scaler is None:
            self.own.step()
        else:
            self.scaler.step(self.own)
            self.scaler.update()

    def tensors(self) -> dict[str, Tensor]:
        """Return what the optimiser remembers of each parameter."""
        state = self.own.state if self.own is not None else {}
        kept = {(kind, name): v for name, p in self.names.items() for kind, v in state.get(p, {}).items()}
        return {f"optimiser {kind} {name}": v for (kind, name), v in kept.items() if isinstance(v, Tensor)}

    def facts(self) -> dict[str, Any]:
        """Return what else it remembers, as JSON takes it."""
        return {"scaler": self.scaler.state_dict() if self.scaler is not None else {}}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Take up what was saved."""
        assert self.own is not None
        for key, value in tensors.items():
            if key.startswith("optimiser "):
                _, kind, name = key.split(" ", 2)
                self.own.state[self.names[name]][kind] = value.clone()
        if self.scaler is not None:
            self.scaler.load_state_dict(facts["scaler"])

    def _grouped(self, new: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """The new parameters, those with equal options together."""
        if self.groups is None:
            return [{"params": list(new.values())}]
        if callable(self.groups):
            by: dict[tuple[Any, ...], list[Tensor]] = {}
            for name, value in new.items():
                by.setdefault(tuple(sorted(self.groups(name).items())), []).append(value)
            return [{"params": values, **dict(options)} for options, values in by.items()]
        names = {id(value): name for name, value in new.items()}
        groups = [{**group, "params": list(group["params"])} for group in self.groups]
        told = [id(value) for group in groups for value in group["params"]]
        lost = [name for key, name in names.items() if key not in told]
        if lost or len(told) != len(names):
            raise ValueError(f"groups must hold each parameter once; missing: {', '.join(lost) or 'none'}")
        return groups
