"""What a fit learned: parameters by name, and a context in which programs see them."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from inference.base import Fit, Program, conditioned
from ppmodels.base import Data

Parameters = dict[str, Tensor]


@contextmanager
def learned(fit: Fit) -> Iterator[None]:
    """Run programs with what the fit learned: every `pyro.param` and every module's weights.

    A program called inside, the fit's own or a part of it that declares the same names, reads the learned
    values. Afterwards modules that are not the fit's own, such as one that a function found in its closure,
    are as before, also after an exception.
    """
    parameters = fit.state.get("parameters", {}) if isinstance(fit.state, Mapping) else {}
    with Restored(parameters):
        yield


def frozen(fit: Fit) -> Program:
    """Return the model's joint with what the fit learned held fast: a plain program, for back ends that learn nothing.

    It takes one `Data`, of the fit's rows or of others.
    """
    own: Any = copy.deepcopy(fit.model)
    for part in vars(own).values():
        if isinstance(part, nn.Module):
            part.eval().requires_grad_(False)  # which Pyro then takes for no parameters
    parameters = fit.state.get("parameters", {}) if isinstance(fit.state, Mapping) else {}
    asked = conditioned(own)

    def program(data: Data) -> None:
        with poutine.block(hide_types=["param"]), Restored(parameters):
            asked(data)

    return program


class Restored(Messenger):
    """Give every parameter its learned value, and put modules back afterwards.

    `pyro.module` uses a module's own weights, whatever the store says; so they are overwritten in place.
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.parameters = parameters
        self.original: dict[str, tuple[nn.Parameter, Tensor]] = {}

    def _pyro_param(self, msg: Any) -> None:
        name = msg["name"]
        if name not in self.parameters:
            return
        value, own = self.parameters[name], _weight(msg)
        if own is None:
            msg["value"], msg["done"] = value, True
        elif name not in self.original:
            self.original[name] = own, own.detach().clone()
            with torch.no_grad():
                own.copy_(value)

    def __exit__(self, *args: Any) -> None:
        with torch.no_grad():
            for own, value in self.original.values():
                own.copy_(value)
        self.original.clear()
        super().__exit__(*args)


class Untouched(Messenger):
    """Put back the weights of modules that were trained inside, once they have been read."""

    def __init__(self) -> None:
        super().__init__()
        self.original: dict[str, tuple[nn.Parameter, Tensor]] = {}

    def _pyro_param(self, msg: Any) -> None:
        own = _weight(msg)
        if own is not None and msg["name"] not in self.original:
            self.original[msg["name"]] = own, own.detach().clone()

    def __exit__(self, *args: Any) -> None:
        with torch.no_grad():
            for own, value in self.original.values():
                own.copy_(value)
        super().__exit__(*args)


def in_store() -> Parameters:
    """Return a copy of every parameter in Pyro's store, as programs see it."""
    return {name: value.detach().clone() for name, value in pyro.get_param_store().items()}


def _weight(msg: Any) -> nn.Parameter | None:
    """The module's own weight that this parameter is, if it is one."""
    values = [*msg["args"][1:], *msg["kwargs"].values()]
    return next((value for value in values if isinstance(value, nn.Parameter)), None)
