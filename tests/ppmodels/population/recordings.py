"""Open recordings, where the folder that holds them is at hand."""

import os
from pathlib import Path

import pytest


def folder(name):
    here = Path(__file__).resolve().parents[4] / "shared" / "data"
    place = Path(os.environ.get("RECORDINGS", here)) / name
    if not place.is_dir():
        pytest.skip("the folder of recordings is not here; set RECORDINGS to it")
    return place
