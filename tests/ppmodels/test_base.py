"""Data sets from arrays of any kind, or one line that says which cell is wrong."""

import numpy as np
import pandas as pd
import pytest
import torch

from ppmodels import load
from ppmodels.base import Data


@pytest.mark.parametrize(
    "x",
    [
        [[1, 2.5], [3, 4]],
        np.array([[1, 2.5], [3, 4]]),
        pd.DataFrame({"a": [1, 3], "b": [2.5, 4]}),
        [["1", "2.5"], ["3", "4"]],
        torch.tensor([[1, 2.5], [3, 4]], dtype=torch.float64),
    ],
    ids=["list", "array", "table", "words", "tensor"],
)
def test_numbers_of_any_kind_become_one_tensor(x):
    data = Data.of(load("gmm")(), x=x, coords={"feature": ("a", "b")}, units={"a": "min"})
    torch.testing.assert_close(data.observed["x"], torch.tensor([[1, 2.5], [3, 4]], dtype=torch.float64))
    assert (data.rows, data.units, data.coords) == (2, {"a": "min"}, {"feature": ("a", "b")})


def test_an_array_that_may_not_be_written_is_copied():
    x = np.ones((3, 2))
    x.flags.writeable = False
    assert Data.of(load("gmm")(), x=x).observed["x"].shape == (3, 2)


@pytest.mark.parametrize(
    ("x", "said"),
    [
        ([[1, 2], ["short", 4]], "x holds no number but 'short' in row 1, column 0; leave it out or code it"),
        (pd.DataFrame({"a": [1, 2], "b": ["u", "v"]}), "x holds no number but 'u' in row 0, column 1"),
        ([[1, 2], [None, 4]], "x holds no number but None in row 1, column 0"),
        ([[1, 2], [3]], "x has rows of different lengths"),
    ],
)
def test_what_is_no_number_is_named(x, said):
    with pytest.raises(ValueError, match=said):
        Data.of(load("gmm")(), x=x)


def test_arrays_must_be_those_of_the_model():
    with pytest.raises(ValueError, match="LinearRegression takes x, y; got x"):
        Data.of(load("linear")(), x=[[1.0]])
    with pytest.raises(ValueError, match="the same number of rows"):
        Data.of(load("linear")(), x=[[1.0]], y=[1.0, 2.0])
