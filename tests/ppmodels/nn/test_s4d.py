import pytest
import torch

from ppmodels.nn.discretise import bilinear, zero_order_hold
from ppmodels.nn.s4d import INITIALISATIONS, S4D, spectrum

METHODS = ("zoh", "bilinear")


def impulse(length, channels):
    u = torch.zeros(1, length, channels, dtype=torch.float64)
    u[:, 0] = 1
    return u


@pytest.mark.parametrize("init", INITIALISATIONS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("length", [1, 2, 37, 256])
def test_impulse_in_kernel_out(init, method, length):
    torch.manual_seed(0)
    ssm = S4D(3, 8, init, method).double()
    kernel = ssm.kernel(length)
    y, _ = ssm.recurrence().scan(impulse(length, 3))
    torch.testing.assert_close(y[0].mT, kernel, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize(("method", "rule"), [("zoh", zero_order_hold), ("bilinear", bilinear)])
def test_kernel_is_that_of_the_dense_system(method, rule):
    torch.manual_seed(0)
    ssm = S4D(1, 6, "lin", method).double()
    a = -ssm.log_decay.exp() + 1j * ssm.frequency
    a_bar, b_bar = rule(torch.diag_embed(a), torch.ones_like(a), ssm.log_dt.exp())
    c = torch.view_as_complex(ssm.readout)
    powers = [torch.linalg.matrix_power(a_bar, i) @ b_bar[..., None] for i in range(20)]
    dense = torch.stack([2 * (c[..., None, :] @ x).real.flatten() for x in powers], -1)
    torch.testing.assert_close(ssm.kernel(20), dense, atol=1e-12, rtol=1e-12)


def test_published_spectra():
    n = torch.arange(4, dtype=torch.float64)
    torch.testing.assert_close(spectrum("lin", 8).imag, torch.pi * n)
    torch.testing.assert_close(spectrum("inv", 8).imag, 8 / torch.pi * (8 / (2 * n + 1) - 1))
    assert spectrum("legs", 8).imag.max().item() == pytest.approx(19.8574, abs=1e-4)
    assert (spectrum("legs", 8).real + 0.5).abs().max() < 1e-12
    assert spectrum("real", 3).tolist() == [-1, -2, -3]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("init", ["lin", "real"])
@pytest.mark.parametrize("method", METHODS)
def test_stretches_with_carried_state_are_the_whole(init, method, dtype, tolerance):
    torch.manual_seed(1)
    ssm = S4D(2, 8, init, method).to(dtype)
    u = torch.randn(3, 61, 2, dtype=dtype)
    recurrence = ssm.recurrence()
    y, last = recurrence.scan(u)
    _, middle = recurrence.scan(u[:, :20])
    torch.testing.assert_close(ssm.absorb(u[:, :20].mT), middle, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(ssm.absorb(u[:, 20:].mT, middle), last, atol=tolerance, rtol=tolerance)
    rest, _ = recurrence.scan(u[:, 20:])
    carried = ssm.free_response(middle, 41).mT
    torch.testing.assert_close(rest + carried, y[:, 20:], atol=tolerance, rtol=tolerance)


def test_half_the_samples_at_twice_the_step():
    ssm = S4D(2, 8, "lin", "zoh").double()
    assert ssm.kernel(40, rate=2.0).shape == (2, 40)
    exponent = ssm.recurrence().decay
    torch.testing.assert_close(ssm.recurrence(rate=2.0).decay, exponent**2)


def test_gradients_of_every_parameter():
    torch.manual_seed(0)
    for method in METHODS:
        ssm = S4D(2, 4, "lin", method).double()
        names, values = zip(*ssm.named_parameters(), strict=True)

        def kernel(*values, ssm=ssm, names=names):
            return torch.func.functional_call(_Kernel(ssm), {f"ssm.{n}": v for n, v in zip(names, values, strict=True)})

        inputs = [v.detach().clone().requires_grad_() for v in values]
        assert torch.autograd.gradcheck(kernel, inputs, rtol=1e-5, atol=1e-8)


class _Kernel(torch.nn.Module):
    def __init__(self, ssm):
        super().__init__()
        self.ssm = ssm

    def forward(self):
        return self.ssm.kernel(9)


def test_a_long_kernel_keeps_its_digits_in_single_precision():
    torch.manual_seed(0)
    ssm = S4D(4, 64)
    single = ssm.kernel(65536)
    exact = ssm.double().kernel(65536)
    assert (single - exact).abs().max() < 2e-6 * exact.abs().max()


def test_forward_leaves_the_weights_alone():
    ssm = S4D(2, 8)
    before = {k: v.clone() for k, v in ssm.state_dict().items()}
    for length in (5, 500):
        ssm.kernel(length)
    assert all(torch.equal(v, before[k]) for k, v in ssm.state_dict().items())


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"init": "lim"}, "no initialisation"),
        ({"states": 7}, "even"),
        ({"method": "euler"}, "no discretisation"),
        ({"dt": (0.1, 0.01)}, "rising"),
    ],
)
def test_one_clear_line_for_what_cannot_be(options, word):
    with pytest.raises(ValueError, match=word):
        S4D(2, **options)
