"""Folders of published splits: read, scaled by the training rows alone, and refused where they cannot be."""

import math

import numpy as np
import pytest
import torch

from ppmodels.datasets.splits import Splits
from tests.shared import shared


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    values = generator.normal(3.0, 2.0, (20, 4))
    values[:, 1] = 5.0  # a column that says nothing
    np.savetxt(tmp_path / "data.txt", values, fmt="%.17g")
    np.savetxt(tmp_path / "index_features.txt", [0, 1, 2], fmt="%d")
    np.savetxt(tmp_path / "index_target.txt", [3], fmt="%d")
    for k in range(3):
        order = generator.permutation(20)
        np.savetxt(tmp_path / f"index_train_{k}.txt", order[:18], fmt="%.18e")
        np.savetxt(tmp_path / f"index_test_{k}.txt", order[18:], fmt="%.18e")
    return tmp_path


def test_a_split_is_scaled_by_its_training_rows(folder):
    splits = Splits.read(folder)
    assert (len(splits), splits.shape, splits.name) == (3, (20, 3), folder.name)
    split = splits[1]
    x, y = split.train.given["x"], split.train.observed["y"]
    assert torch.allclose(x.mean(0), torch.zeros(3, dtype=x.dtype), atol=1e-12)
    assert torch.allclose(x.std(0, correction=0), torch.tensor([1.0, 0.0, 1.0], dtype=x.dtype), atol=1e-12)
    assert float(y.std(correction=0)) == pytest.approx(1.0)
    rows = np.loadtxt(folder / "index_test_1.txt").astype(int)
    raw = np.loadtxt(folder / "data.txt")[rows, 3]
    assert (split.test.observed["y"] * split.sd + split.mean).numpy() == pytest.approx(raw)


def test_scores_are_in_the_unit_of_y(folder):
    split = Splits.read(folder)[0]
    y = split.test.observed["y"]
    assert split.rmse(y + 2.0) == pytest.approx(2 * split.sd)
    scaled = torch.distributions.Normal(torch.zeros(2), 1.0).log_prob(y)
    raw = torch.distributions.Normal(split.mean, split.sd).log_prob(y * split.sd + split.mean)
    assert split.log_likelihood(scaled) == pytest.approx(float(raw.mean()))


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("data.txt", "1 2 3 4\n1 nan 3 4\n", r"data\.txt: row 1, column 1 is nan"),
        ("data.txt", "1 2 3 four\n", r"data\.txt: could not convert"),
        ("data.txt", "", r"data\.txt: it is empty"),
        ("index_test_1.txt", "3\n99\n", r"index_test_1\.txt: 99 is no index from 0 to 19"),
        ("index_test_1.txt", "3\n3\n", r"index_test_1\.txt: an index is there twice"),
        ("index_test_0.txt", "\n".join(map(str, range(20))), r"row \d+ is a training row and a test row of split 0"),
        ("index_target.txt", "2\n", r"index_target\.txt names one column"),
    ],
)
def test_what_cannot_be_is_named(folder, file, text, words):
    (folder / file).write_text(text)
    with pytest.raises(ValueError, match=words):
        Splits.read(folder)


def test_what_is_missing_is_named(folder, tmp_path):
    (folder / "index_test_2.txt").unlink()
    with pytest.raises(FileNotFoundError, match="index_test_2"):
        Splits.read(folder)
    for k in range(3):
        (folder / f"index_train_{k}.txt").unlink()
    with pytest.raises(FileNotFoundError, match="has no splits"):
        Splits.read(folder)
    with pytest.raises(FileNotFoundError, match="no folder"):
        Splits.read(tmp_path / "nowhere")


@pytest.mark.parametrize(("name", "shape"), [("yacht", (308, 6)), ("energy", (768, 8)), ("concrete", (1030, 8))])
def test_the_published_folders_are_read(name, shape):
    splits = Splits.read(shared("data", "uci", name))
    assert splits.shape[0] == shape[0]
    assert len(splits) == 20
    split = splits[19]
    assert split.train.rows + split.test.rows == shape[0]
    assert math.isclose(split.test.rows, shape[0] / 10, abs_tol=1)
