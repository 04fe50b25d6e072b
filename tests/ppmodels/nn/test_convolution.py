import pytest
import torch

from ppmodels.nn.convolution import causal_convolution, transform_length


@pytest.mark.parametrize("length", [1, 2, 7, 64, 101])
@pytest.mark.parametrize("both", [False, True])
def test_transform_is_the_direct_sum(length, both):
    torch.manual_seed(0)
    u = torch.randn(2, 3, length, dtype=torch.float64)
    k, r = torch.randn(2, 3, length, dtype=torch.float64)
    direct = torch.zeros_like(u)
    for t in range(length):
        for s in range(length):
            if s <= t:
                direct[..., t] += k[:, t - s] * u[..., s]
            elif both:
                direct[..., t] += r[:, s - t - 1] * u[..., s]
    result = causal_convolution(u, k, r if both else None)
    torch.testing.assert_close(result, direct, atol=1e-10, rtol=0)


def test_transform_lengths():
    sizes = [transform_length(n) for n in (1, 2, 3, 5, 6, 7, 2045, 2049, 3073)]
    assert sizes == [1, 2, 3, 6, 6, 8, 2048, 3072, 4096]
