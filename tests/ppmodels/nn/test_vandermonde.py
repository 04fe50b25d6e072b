import math

import pytest
import torch

from ppmodels.nn.vandermonde import final_state, powers, vandermonde


def exponents(channels=3, modes=8, step=0.02):
    frequency = math.pi * torch.arange(modes).double()
    return (step * torch.complex(torch.full_like(frequency, -0.5), frequency)).repeat(channels, 1)


def published(weights, exponents, length):
    """The materialised Vandermonde matrix."""
    times = torch.arange(length, dtype=torch.float64)
    return 2 * torch.einsum("hn,hnl->hl", weights, torch.exp(exponents[..., None] * times)).real


@pytest.mark.parametrize("length", [1, 2, 3, 5, 63, 64, 65, 1023, 4097])
def test_factored_is_the_published_product(length):
    torch.manual_seed(0)
    z = exponents()
    w = torch.randn(3, 8, dtype=torch.complex128)
    expected = published(w, z, length)
    torch.testing.assert_close(vandermonde(w, z, length), expected, atol=1e-12, rtol=1e-12)
    single = vandermonde(w.to(torch.complex64), z, length)
    assert single.dtype == torch.float32
    assert (single - expected).abs().max() < 2e-6 * expected.abs().max()


def test_real_modes():
    z = -torch.arange(1.0, 6.0).double().repeat(2, 1) * 0.1
    w = torch.randn(2, 5, dtype=torch.float64)
    expected = (w[..., None] * torch.exp(z[..., None] * torch.arange(77))).sum(1)
    torch.testing.assert_close(vandermonde(w, z, 77), expected)


def test_gradients_are_those_of_the_published_product():
    torch.manual_seed(1)
    up = torch.randn(3, 200, dtype=torch.float64)
    grads = []
    for rule in (vandermonde, published):
        z, w = exponents().requires_grad_(), torch.ones(3, 8, dtype=torch.complex128).requires_grad_()
        grads.append(torch.autograd.grad((rule(w, z, 200) * up).sum(), (z, w)))
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_final_state_is_the_recurrence():
    torch.manual_seed(2)
    z, u = exponents(), torch.randn(2, 3, 45, dtype=torch.float64)
    state = torch.zeros(2, 3, 8, dtype=torch.complex128)
    for t in range(45):
        state = z.exp() * state + u[..., t, None]
    torch.testing.assert_close(final_state(u, z), state, atol=1e-12, rtol=1e-12)


def test_powers_count():
    values = powers(torch.tensor([-0.3], dtype=torch.float64), 7, torch.float64)
    torch.testing.assert_close(values[:, 0], torch.exp(-0.3 * torch.arange(7, dtype=torch.float64)))


def test_memory_is_far_below_the_matrix():
    """The largest tensor on the way, of 64 modes and 65,536 times, is not of their product."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                self.seen = max(self.seen, out.numel())
            return out

    length, modes = 65536, 64
    w = torch.randn(1, modes, dtype=torch.complex64)
    with Largest() as largest:
        vandermonde(w, exponents(1, modes), length)
    assert largest.seen <= max(length, 2 * modes * math.isqrt(length))
