"""Out of memory: the chains' densities are evaluated in parts, half as large each time, and the run goes on."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from inference.density import Batched, Density
from inference.density.executor import out_of_memory
from inference.mcmc import kernels
from inference.mcmc.chains import Chains, Tuned
from inference.mcmc.plan import Plan

log = logging.getLogger("inference")

Found = TypeVar("Found")


class Sparing:
    """A kernel that takes a turn back which did not end, and repeats it in parts where memory was too small."""

    def __init__(self, density: Density, batched: Batched, plan: Plan, generator: torch.Generator) -> None:
        self.density, self.batched, self.generator = density, batched, generator
        self.kernel = kernels.make(plan, batched, generator)

    def __call__(self, chains: Chains, tuned: Tuned, turn: int) -> tuple[Chains, dict[str, Tensor]]:
        return within(self.density, self.batched, self.generator, lambda: self.kernel(chains, tuned, turn))

    def __getattr__(self, name: str) -> Any:
        """What this kernel has besides: `adapt`, `acceptance`."""
        return getattr(self.kernel, name)


def within(density: Density, batched: Batched, generator: torch.Generator, act: Callable[[], Found]) -> Found:
    """Return act(); where memory does not suffice, that of act repeated with the same random numbers, in more parts."""
    before = generator.get_state()
    while True:
        try:
            return act()
        except BaseException as error:
            generator.set_state(before)
            if not out_of_memory(error) or batched.parts >= batched.chains:
                raise
        density.divide(batched)
        log.warning("out of memory; the chains move in %d parts from here on", batched.parts)
