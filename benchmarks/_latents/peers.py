"""EM of elephant and dynamax, from the same start as ours."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppmodels.population.linear_system import LinearSystem


def elephant_em(y: Tensor, model: Any, theta: dict[str, Tensor], steps: int) -> Any:
    """Run elephant's EM from the same start; its floor of variances is put where it does not bind."""
    from elephant.gpfa import gpfa_core

    trials = [(y.shape[1], trial.mT.numpy().copy()) for trial in y]
    sequences = np.array(trials, dtype=[("T", int), ("y", object)]).view(np.recarray)
    start = {
        "covType": "rbf",
        "gamma": (model.bin_size / theta["timescale"].numpy()) ** 2,
        "eps": np.full(len(theta["timescale"]), model.jitter),
        "d": theta["offset"].numpy().copy(),
        "C": theta["loading"].numpy().copy(),
        "R": np.diag(theta["noise"].square().numpy()),
        "notes": {"learnKernelParams": True, "learnGPNoise": False, "RforceDiagonal": True},
    }
    return gpfa_core.em(start, sequences, max_iters=steps, tol=1e-8, min_var_frac=1e-6)


def elephant_theta(parameters: dict[str, Any]) -> dict[str, Tensor]:
    """What elephant found, as sites."""
    return {
        "timescale": torch.tensor(0.02 / np.sqrt(np.asarray(parameters["gamma"]).reshape(-1))),
        "loading": torch.tensor(np.asarray(parameters["C"])),
        "offset": torch.tensor(np.asarray(parameters["d"]).reshape(-1)),
        "noise": torch.tensor(np.sqrt(np.diag(parameters["R"]))),
    }


def dynamax_values(system: LinearSystem, peer: Any) -> dict[str, Any]:
    """The system under dynamax's names."""
    assert system.noise is not None
    return {
        "initial_mean": system.initial_loc.numpy(),
        "initial_covariance": system.initial_cov.numpy(),
        "dynamics_weights": system.dynamics.numpy(),
        "dynamics_covariance": system.innovation.numpy(),
        "emission_weights": system.loading.numpy(),
        "emission_bias": system.offset.numpy(),
        "emission_covariance": torch.diag(system.noise).numpy(),
    }


def dynamax_em(peer: Any, start: Any, properties: Any, emissions: Any, steps: int) -> Callable[[], Any]:
    """What `fit_em` of dynamax compiles, so many EM steps, compiled once: a call takes them."""
    import jax

    def step(y: Any, carry: Any, _: Any) -> Any:
        now, state = carry
        told, heights = jax.vmap(partial(peer.e_step, now))(y)
        return peer.m_step(now, properties, told, state), peer.log_prior(now) + heights.sum()

    run = jax.jit(lambda y, carry: jax.lax.scan(partial(step, y), carry, xs=None, length=steps)[0][0])
    carry = (start, peer.initialize_m_step_state(start, properties))
    jax.block_until_ready(run(emissions, carry))
    return lambda: jax.block_until_ready(run(emissions, carry))
