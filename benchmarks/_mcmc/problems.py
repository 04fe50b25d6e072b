"""The posteriors at hand, by name: real ones in a folder with reference draws, and those that ship."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np

from benchmarks._mcmc.problem import Arrays, Problem

REAL = ("eight_schools", "kidiq", "low_dim_gauss_mix", "arK", "gp_regr")
SHIPPED = ("mixture", "poisson_glm", "bnn")


def names() -> list[str]:
    """Return the posteriors at hand: those of the folder, and those that need no folder."""
    return [*(REAL if folder() else ()), *SHIPPED]


def folder() -> Path | None:
    """Where real posteriors with reference draws lie, if they do: `shared` beside the project, or SHARED=FOLDER."""
    place = Path(os.environ.get("SHARED", Path(__file__).resolve().parents[3] / "shared"), "posteriors")
    return place if place.is_dir() else None


def load(name: str) -> Problem:
    """Return the posterior of this name."""
    if name in REAL:
        return _real(name)
    from benchmarks._mcmc import shipped

    return getattr(shipped, name)()


def _real(name: str) -> Problem:
    import torch

    root = folder()
    assert root is not None, "set SHARED to the folder with the folder of real posteriors"
    spec = importlib.util.spec_from_file_location("models_pyro", root / "models_pyro.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    data = json.loads((root / "data" / f"{name}.json").read_text())
    tensors = {k: torch.tensor(v, dtype=torch.float64) if isinstance(v, list) else v for k, v in data.items()}
    arrays = {k: np.asarray(v, float) if isinstance(v, list) else v for k, v in data.items()}
    reference = json.loads((root / "reference" / f"{name}.json").read_text())["parameters"]
    scored = _schools if name == "eight_schools" else lambda draws: {site: draws[site] for site in reference}
    return Problem(name, getattr(module, name), (tensors,), arrays, scored, reference=reference)


def _schools(draws: Arrays) -> Arrays:
    theta = draws["mu"][..., None] + draws["tau"][..., None] * draws["theta_trans"]  # (chain, draw, J)
    return {"theta": theta, "mu": draws["mu"], "tau": draws["tau"]}
