"""A folder of fits: files, pictures, and a page that shows what it was given and nothing else."""

import os

import pytest
import torch

from inference import load
from inference.base import Fit
from inference.report import write
from tests.inference.programs import normal


@pytest.fixture
def fits():
    torch.manual_seed(0)
    y = torch.randn(20)
    stats = {"energy": torch.randn(4, 50)}
    return [
        Fit(normal, (y,), {}, "mcmc", {"loc": torch.randn(4, 50) * 0.2}, stats=stats, info={"seconds": 2.0}),
        Fit(
            normal, (y,), {}, "mode", {"loc": torch.zeros(1, 1)},
            trace={"log_density": torch.linspace(-9, -1, 5)},
            info={"converged": False, "message": "<script>alert('no')</script>"},
        ),
    ]  # fmt: skip


def test_a_folder_holds_files_pictures_and_a_page(fits, tmp_path):
    page = write(fits, tmp_path / "runs", title="A & B")
    assert sorted(os.listdir(tmp_path / "runs")) == [
        "compare.png", "mcmc.nc", "mcmc_energy.png", "mcmc_predictive.png", "mcmc_ranks.png", "mcmc_trace.png",
        "mode.nc", "mode_predictive.png", "objective.png", "report.html",
    ]  # fmt: skip
    text = page.read_text()
    assert "<h1>A &amp; B</h1>" in text
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert text.count("data:image/png;base64,") == 7
    assert "http" not in text
    assert "did not converge" in text
    again = load(tmp_path / "runs" / "mcmc.nc", model=normal)
    assert torch.equal(again.draws["loc"], fits[0].draws["loc"])


def test_a_folder_that_cannot_be_made_is_an_error_and_leaves_nothing(fits, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        write(fits, tmp_path / "file")
    assert os.listdir(tmp_path) == ["file"]
