import pytest
import torch

from ppmodels.diffusion.distance import sliced_wasserstein


def test_a_shift_is_measured(seeded):
    """Shifting by a vector of length r costs r / sqrt(D)."""
    x = torch.randn(1000, 3, generator=seeded(), dtype=torch.float64)
    told = sliced_wasserstein(x, x + torch.tensor([3.0, 0.0, 4.0]), 4000, seeded(1))
    assert float(told) == pytest.approx(5 / 3**0.5, rel=0.02)
    assert float(sliced_wasserstein(x, x.flip(0))) < 1e-12


def test_shapes_that_differ():
    with pytest.raises(ValueError, match="one shape"):
        sliced_wasserstein(torch.zeros(3, 2), torch.zeros(4, 2))
