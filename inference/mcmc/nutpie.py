"""nutpie's NUTS over the compiled density, where the package nutpie is installed."""

import inspect
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inference.base import Fit, Unsupported
from inference.density import Batched, Density
from inference.mcmc.centring import begin
from inference.mcmc.plan import complete

NAMES = {
    "logp": "lp",
    "energy": "energy",
    "energy_error": "energy_error",
    "mean_tree_accept": "acceptance_rate",
    "diverging": "diverging",
    "n_steps": "n_steps",
    "depth": "tree_depth",
    "maxdepth_reached": "reached_max_treedepth",
    "step_size": "step_size",
}  # nutpie's statistics by ArviZ's names


def fit(
    model: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    density: Density,
    options: dict[str, Any],
    progress_bar: bool,
) -> Fit:
    """Run nutpie's chains, one after the other, from the starts of every other kernel.

    Each gradient is of one chain, so this is for models whose gradient is too dear to batch. The chains run in
    one thread: they call Python, which one thread does at a time.

    Raises: Unsupported when nutpie is not installed.
    """
    package, began, plan = _package(), time.perf_counter(), complete(options, density)
    generator = torch.Generator(density.device).manual_seed(plan.seed % 2**63)
    found = begin(density, replace(plan, kernel="hmc"), generator)
    chains, density = found.chains, found.coordinates.density
    batched = density.batched(1, calls=plan.num_chains * plan.warmup_calls, compile=plan.compile)
    sampled = package.sample(
        _compiled(density.dim, batched, chains.x),
        draws=plan.num_samples,
        tune=plan.num_warmup,
        chains=plan.num_chains,
        cores=1,
        seed=plan.seed % 2**64,
        progress_bar=progress_bar,
        target_accept=plan.target_accept_prob,
        maxdepth=plan.max_tree_depth,
        **_low_rank(package),
    )
    x, stats = _read(sampled, "", chains.x)
    warm_x, warm_stats = _read(sampled, "warmup_", chains.x)
    info = {
        "seed": plan.seed,
        "halved": 0,
        "target_accept_prob": plan.target_accept_prob,
        "seconds": time.perf_counter() - began,
        "converged": True,
        "message": f"{x.shape[1]} draws from each of {x.shape[0]} chains",
        "kernel": "nutpie",
        "num_chains": x.shape[0],
        "num_samples": x.shape[1],
        "num_warmup": plan.num_warmup,
        "step_size": float(stats["step_size"][:, -1].mean()),
        "centred": found.coordinates.shares,
        "metric": "low rank",
        "gradients": int(stats["n_steps"].sum() + warm_stats["n_steps"].sum()),
        "executor": batched.executor,
        "executor_reason": batched.reason,
        "max_tree_depth": plan.max_tree_depth,
    }
    before = (density.constrain(warm_x), warm_stats) if plan.save_warmup else ({}, {})
    return Fit(model, args, kwargs, "mcmc", density.constrain(x), {}, stats, info, *before)


def refuse(goals: Mapping[str, Any]) -> None:
    """Say which of these goals nutpie cannot keep.

    Raises: Unsupported naming the option.
    """
    for name, value in goals.items():
        if value is not None:
            raise Unsupported(f"kernel='nutpie' runs to its last draw: {name} needs one of the other kernels")
    _package()


def _package() -> Any:
    try:
        import nutpie
    except ImportError as error:
        raise Unsupported("kernel='nutpie' needs the package nutpie: pip install 'ppmodels[nutpie]'") from error
    return nutpie


def _low_rank(package: Any) -> dict[str, Any]:
    """How this version of nutpie is told to learn a low-rank metric."""
    known = inspect.signature(package.sample).parameters
    return {"adaptation": "low_rank"} if "adaptation" in known else {"low_rank_modified_mass_matrix": True}


def _compiled(dim: int, batched: Batched, starts: Tensor) -> Any:
    """The density as nutpie takes it: functions of one float64 vector."""
    from nutpie.compiled_pyfunc import from_pyfunc  # pyright: ignore[reportMissingImports]

    points = itertools.cycle(starts.double().cpu().numpy())

    def log_density() -> Callable[..., tuple[float, np.ndarray]]:
        def evaluate(x: np.ndarray) -> tuple[float, np.ndarray]:
            value, grad = batched(torch.from_numpy(x)[:, None].mT.to(starts))  # (1, dim)
            return float(value), np.ascontiguousarray(grad[0].double().cpu().numpy())

        return evaluate

    return from_pyfunc(
        dim,
        log_density,
        lambda *_: lambda x: {"x": x},
        [np.dtype("float64")],
        [(dim,)],
        ["x"],
        make_initial_point_fn=lambda _: np.ascontiguousarray(next(points)),
    )


def _read(found: Any, prefix: str, like: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Draws, (C, draw, dim), and statistics by ArviZ's names, (C, draw)."""
    x, table = found[f"{prefix}posterior"]["x"].values, found[f"{prefix}sample_stats"]
    values = {ours: table[theirs].values for theirs, ours in NAMES.items()}
    whole = {name: value.astype(np.int32) for name, value in values.items() if value.dtype.kind == "u"}
    return torch.tensor(x).to(like), {name: torch.tensor(value) for name, value in (values | whole).items()}
