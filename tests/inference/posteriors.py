"""Real posteriors with long reference runs, where the folder that holds them is at hand."""

import importlib.util
import json

import torch

from tests.shared import shared

NAMES = ("eight_schools", "kidiq", "low_dim_gauss_mix", "arK", "gp_regr")


def posterior(name):
    """Return (program, data, reference) or skip."""
    root = shared("posteriors")
    spec = importlib.util.spec_from_file_location("models_pyro", root / "models_pyro.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    data = json.loads((root / "data" / f"{name}.json").read_text())
    reference = json.loads((root / "reference" / f"{name}.json").read_text())["parameters"]
    tensors = {k: torch.tensor(v, dtype=torch.float64) if isinstance(v, list) else v for k, v in data.items()}
    return getattr(module, name), tensors, reference
