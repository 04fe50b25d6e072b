"""Open recordings and real posteriors, where the folder `shared` lies beside the project."""

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("SHARED", Path(__file__).resolve().parents[2] / "shared"))


def shared(*names):
    """Return a file or folder of it, or skip the test."""
    place = SHARED.joinpath(*names)
    if not place.exists():
        pytest.skip(f"{'/'.join(names)} is not here; set SHARED to the folder that holds it")
    return place
