"""Starts that the prior makes: as different as what the model holds possible."""

from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from inference.density import Density
from inference.density.executor import loop
from inference.density.inputs import no_validation
from inference.density.program import SomeValue


def from_prior(density: Density, number: int, generator: torch.Generator) -> Tensor:
    """Return unconstrained draws of the prior, (number, dim), each with a finite density; uniform where it has none.

    Draws of torch's own generator: call it inside `inference.base.fresh`.
    """
    names, starts = [site.name for site in density.layout.sites], []
    for _ in range(number):
        with SomeValue(), torch.no_grad(), no_validation():
            nodes: dict[str, Any] = dict(
                poutine.trace(density.program).get_trace(*density.args, **density.kwargs).nodes
            )
        point = density.unconstrain({name: nodes[name]["value"] for name in names})
        value, grad = density.value_and_grad(point)
        possible = bool(value.isfinite()) and bool(grad.isfinite().all())
        starts.append(point if possible else density.start(1, generator, evaluate=loop(density.value_and_grad))[0])
    return torch.stack(starts)
