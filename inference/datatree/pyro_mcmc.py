"""A finished `pyro.infer.MCMC` as a fit: draws by chain, and the few statistics that Pyro keeps."""

from typing import Any

import torch
from pyro.infer import MCMC
from torch import Tensor

from inference.base import Fit


def read_mcmc(mcmc: MCMC) -> Fit:
    """Return the draws, which of them diverged, and how to replay the program.

    Pyro keeps no energy, tree depth or step count of a draw; `acceptance_rate`, of which it keeps the
    mean of each chain, and the step size are in `info`.

    Raises: ValueError when the sampler has not run.
    """
    samples: dict[str, Tensor] | None = mcmc._samples
    if samples is None:
        raise ValueError("this MCMC has no draws yet; call its run(...) first")
    kernel: Any = mcmc.kernel
    info: dict[str, Any] = {
        "inference_library": "pyro-ppl",
        "num_chains": mcmc.num_chains,
        "num_samples": mcmc.num_samples,
        "num_warmup": mcmc.warmup_steps,
        "kernel": type(kernel).__name__,
    }
    kept: list[dict[str, Any]] = [chain or {} for chain in mcmc._diagnostics]
    if all("acceptance rate" in chain for chain in kept):
        info["acceptance_rate"] = [float(chain["acceptance rate"]) for chain in kept]
    if mcmc.num_chains == 1 and hasattr(kernel, "step_size"):
        info["step_size"] = float(kernel.step_size)
    model: Any = getattr(kernel, "model", None)
    info["name"] = getattr(model, "__name__", type(model).__name__)
    return Fit(model, mcmc._args or (), mcmc._kwargs or {}, "pyro_mcmc", dict(samples), {}, _stats(kept, mcmc), info)


def _stats(kept: list[dict[str, Any]], mcmc: MCMC) -> dict[str, Tensor]:
    """Which draws ended a divergent trajectory, (chain, draw), where the kernel notes it."""
    if not all("divergences" in chain for chain in kept):
        return {}
    diverging = torch.zeros(mcmc.num_chains, mcmc.num_samples, dtype=torch.bool)
    for row, chain in zip(diverging, kept, strict=True):
        row[torch.as_tensor(chain["divergences"], dtype=torch.long)] = True
    return {"diverging": diverging}
