"""Kernels by name."""

import importlib

import torch

from inference.density import Batched
from inference.mcmc.chains import Kernel
from inference.mcmc.plan import Plan


def make(plan: Plan, batched: Batched, generator: torch.Generator) -> Kernel:
    """Return the transition of the plan's kernel, from the file of that name."""
    module = importlib.import_module(f"inference.mcmc.{plan.kernel}")
    return module.kernel(batched, generator, plan)
