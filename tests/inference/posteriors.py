"""Real posteriors with long reference runs, where the folder that holds them is at hand."""

import importlib.util
import json
import os
from pathlib import Path

import pytest
import torch

NAMES = ("eight_schools", "kidiq", "low_dim_gauss_mix", "arK", "gp_regr")


def folder():
    here = Path(__file__).resolve().parents[3] / "shared" / "posteriors"
    place = Path(os.environ.get("POSTERIORS", here))
    return place if place.is_dir() else None


def posterior(name):
    """Return (program, data, reference) or skip."""
    root = folder()
    if root is None:
        pytest.skip("the folder of reference posteriors is not here; set POSTERIORS to it")
    spec = importlib.util.spec_from_file_location("models_pyro", root / "models_pyro.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    data = json.loads((root / "data" / f"{name}.json").read_text())
    reference = json.loads((root / "reference" / f"{name}.json").read_text())["parameters"]
    tensors = {k: torch.tensor(v, dtype=torch.float64) if isinstance(v, list) else v for k, v in data.items()}
    return getattr(module, name), tensors, reference
