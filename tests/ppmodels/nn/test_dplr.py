import time

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ppmodels.nn import dplr
from ppmodels.nn.discretise import bilinear
from ppmodels.nn.dplr import dplr_kernel, generating_function, real_form, truncate, untruncate
from ppmodels.nn.hippo import MEASURES, transition
from ppmodels.nn.nplr import conjugate_half, nplr


def system(measure="legs", states=8, step=0.05):
    """A HiPPO system with a random readout, as pairs and as dense matrices."""
    torch.manual_seed(0)
    form, (a, b) = conjugate_half(nplr(measure, states)), transition(measure, states)
    if measure == "fout":  # its eigenvalue zero would divide by zero at z = 1
        form, a = (
            form._replace(eigenvalues=form.eigenvalues - 0.01),
            a - 0.01 * torch.eye(states, dtype=torch.float64),
        )
    c = torch.randn(states, dtype=torch.float64)
    paired = c.to(torch.complex128) @ form.vectors
    p = form.low_rank[None]
    parts = (form.eigenvalues[None], p, p, form.input[None])
    return parts, paired[None], torch.tensor([step], dtype=torch.float64), (*bilinear(a, b, step), c)


def power_series(a_bar, b_bar, c, length):
    terms, x = [], b_bar
    for _ in range(length):
        terms.append(c @ x)
        x = a_bar @ x
    return torch.stack(terms)


def tilde(parts, c, step, length):
    a, b, readout = real_form(*parts, c)
    real, imaginary = (truncate(readout, bilinear(a, b, step)[0], length) / 2).chunk(2, -1)
    return torch.complex(real, -imaginary)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("length", [1, 2, 31, 32, 255, 256])
def test_three_ways_to_a_kernel(measure, length):
    parts, c, step, (a_bar, b_bar, c_real) = system(measure)
    series = power_series(a_bar, b_bar, c_real, length)
    nodes = torch.exp(-2j * torch.pi * torch.arange(length).double() / length)
    readout = c_real @ (torch.eye(8).double() - torch.linalg.matrix_power(a_bar, length))
    inner = torch.eye(8) - nodes[:, None, None] * a_bar
    dense = torch.fft.ifft(torch.linalg.solve(inner, b_bar.to(inner.dtype)) @ readout.to(inner.dtype))
    cauchy = dplr_kernel(*parts, tilde(parts, c, step, length), step, length)[0]
    scale = series.abs().max()
    assert (dense.real - series).abs().max() < 1e-12 * scale
    assert dense.imag.abs().max() < 1e-12 * scale
    assert (cauchy - series).abs().max() < 1e-12 * scale


@pytest.mark.parametrize("states_length", [(16, 256), (64, 1024), (64, 1023), (64, 4096)])
def test_long_kernels(states_length):
    states, length = states_length
    parts, c, step, dense = system("legs", states, 0.01)
    series = power_series(*dense, length)
    cauchy = dplr_kernel(*parts, tilde(parts, c, step, length), step, length)[0]
    assert (cauchy - series).abs().max() < 2e-12 * series.abs().max()
    single = [x.to(torch.complex64) for x in parts]
    rough = dplr_kernel(*single, tilde(parts, c, step, length).to(torch.complex64), step.float(), length)[0]
    assert (rough - series).abs().max() < 7e-6 * series.abs().max()


def test_transform_of_the_kernel_is_real_on_the_whole_circle():
    parts, c, step, dense = system()
    nodes = torch.exp(-2j * torch.pi * torch.arange(32).double() / 32)
    kernel = torch.fft.ifft(generating_function(*parts, tilde(parts, c, step, 32), step, nodes)[0])
    assert kernel.imag.abs().max() < 1e-12
    torch.testing.assert_close(kernel.real, power_series(*dense, 32), atol=1e-12, rtol=0)


def test_minus_one_is_a_point_like_any_other():
    parts, c, step, _ = system()
    value = generating_function(*parts, c, step, torch.tensor([-1.0 + 0j], dtype=torch.complex128))
    expected = step * (c * parts[3]).sum(-1).real  # Delta / 2 times C B, over both of each pair
    torch.testing.assert_close(value[0].real, expected)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_woodbury_is_the_dense_inverse(rank):
    """Random Lambda, P and Q, not a HiPPO matrix and not tied."""
    torch.manual_seed(rank)
    p, q = torch.randn(2, 2, rank, 5, dtype=torch.complex128)
    eigenvalues, b, c = torch.randn(3, 2, 5, dtype=torch.complex128)
    step, z = (
        torch.tensor([0.1, 0.4], dtype=torch.float64),
        0.7 * torch.exp(1j * torch.linspace(0, 6, 9, dtype=torch.float64)),
    )
    ours = generating_function(eigenvalues, p, q, b, c, step, z)  # (2, 9)
    a, b_real, c_real = real_form(eigenvalues, p, q, b, c)
    a_bar, b_bar = bilinear(a, b_real, step)
    inner = torch.eye(10) - z[:, None, None, None] * a_bar  # (9, 2, 10, 10)
    dense = (c_real * torch.linalg.solve(inner, b_bar.to(inner.dtype).expand(9, -1, -1))).sum(-1)
    torch.testing.assert_close(ours, dense.mT, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("length", [1, 33, 512])
def test_readout_round_trips(length):
    _, _, _, (a_bar, _, c) = system(states=16)
    there = truncate(c[None], a_bar[None], length)
    power = torch.linalg.matrix_power(a_bar, length)
    torch.testing.assert_close(there[0], c - c @ power, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(untruncate(there, a_bar[None], length)[0], c, atol=1e-8, rtol=1e-8)


def test_blocks_change_nothing(monkeypatch):
    def run():
        parts, c, step, _ = system("legt", 16)
        inputs = [x.clone().requires_grad_() for x in (*parts, c)]
        kernel = dplr_kernel(*inputs, step, 200)
        return kernel, torch.autograd.grad(kernel.square().sum(), inputs)

    whole = run()
    monkeypatch.setattr(dplr, "BLOCK", 1)
    blocked = run()
    torch.testing.assert_close(whole[0], blocked[0])
    for one, other in zip(whole[1], blocked[1], strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_of_every_parameter():
    parts, c, step, _ = system(states=4)
    inputs = [x.clone().requires_grad_() for x in (*parts, c, step)]
    assert torch.autograd.gradcheck(lambda *x: dplr_kernel(*x, 9), inputs, rtol=1e-5, atol=1e-7)


class Work(TorchDispatchMode):
    """Elements written by all operations: a count of the work that no other process can disturb."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        # A view writes nothing.
        if isinstance(out, torch.Tensor) and not func.is_view:
            self.elements += out.numel()
        return out


def work(states, length):
    parts, c, step, _ = system("legs", states)
    with Work() as counted:
        dplr_kernel(*parts, c, step, length)
    return counted.elements


def test_cost_is_linear_in_states_and_length():
    """Not N^2 L: each doubling adds twice what the one before added."""
    small, middle, large = (work(n, 4096) for n in (64, 128, 256))
    assert (large - middle) / (middle - small) == pytest.approx(2, rel=0.02)
    assert work(64, 16384) / work(64, 8192) == pytest.approx(2, rel=0.02)


@pytest.mark.slow
def test_time_is_linear_in_states():
    def seconds(states):  # of the processor, since others may be using it too
        parts, c, step, _ = system("legs", states)
        best = float("inf")
        for _ in range(7):
            start = time.process_time()
            dplr_kernel(*parts, c, step, 16384)
            best = min(best, time.process_time() - start)
        return best

    assert seconds(128) / seconds(64) == pytest.approx(2, rel=0.3)
