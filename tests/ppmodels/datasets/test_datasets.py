"""The shipped numbers are the published ones."""

import torch

from ppmodels.datasets import old_faithful


def test_old_faithful():
    data = old_faithful()
    x = data.observed["x"]
    assert x.shape == (272, 2)
    assert x.dtype == torch.float64
    assert data.rows == 272
    assert data.coords == {"feature": ("eruptions", "waiting")}
    assert data.units == {"eruptions": "min", "waiting": "min"}
    torch.testing.assert_close(x.mean(0), x.new_tensor([3.487783, 70.897059]), rtol=0, atol=1e-6)
    torch.testing.assert_close(x.std(0), x.new_tensor([1.141371, 13.594974]), rtol=0, atol=1e-6)
    assert x[0].tolist() == [3.6, 79]
    assert x[-1].tolist() == [4.467, 74]
