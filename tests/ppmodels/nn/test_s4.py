import pytest
import torch

from ppmodels.nn.discretise import bilinear
from ppmodels.nn.dplr import real_form
from ppmodels.nn.hippo import MEASURES, transition
from ppmodels.nn.s4 import S4


def untied(init, channels=3, states=8, **options):
    torch.manual_seed(0)
    ssm = S4(channels, states, init, tied=False, **options).double()
    with torch.no_grad():
        ssm.left.mul_(0.9)
    return ssm


@pytest.mark.parametrize("init", MEASURES)
@pytest.mark.parametrize("length", [1, 2, 33, 256])
def test_kernel_recurrence_and_dense_system_agree(init, length):
    ssm = untied(init)
    a, b, c = real_form(*ssm.system())
    a_bar, b_bar = bilinear(a, b, ssm.log_dt.exp())
    x, terms = b_bar, []
    for _ in range(length):
        terms.append((c * x).sum(-1))
        x = (a_bar @ x[..., None])[..., 0]
    dense = torch.stack(terms, -1)
    u = torch.zeros(1, length, 3, dtype=torch.float64)
    u[:, 0] = 1
    stepped, _ = ssm.recurrence().scan(u)
    scale = dense.abs().max()
    assert (ssm.kernel(length) - dense).abs().max() < 1e-11 * scale
    assert (stepped[0].mT - dense).abs().max() < 1e-12 * scale


def test_starts_as_the_hippo_system():
    ssm = S4(1, 8, "legs").double()
    values = torch.linalg.eigvals(real_form(*ssm.system())[0][0])
    # float32 parameters, and a triangular matrix of such condition: eigenvalues to three digits
    torch.testing.assert_close(values.real.sort().values, -torch.arange(8, 0, -1).double(), atol=1e-2, rtol=0)
    assert transition("legs", 8)[0].diagonal().tolist() == [-1, -2, -3, -4, -5, -6, -7, -8]


def test_readout_kept_at_one_length_is_the_same_model():
    """The published parameter C (I - A_bar^L): no conversion at its length, exact conversion at others."""
    kept = untied("legs", length=40)
    plain = untied("legs")
    with torch.no_grad():
        plain.readout.copy_(torch.view_as_real(kept._truncated(None)))
    for length in (7, 40, 100):
        torch.testing.assert_close(kept.kernel(length), plain.kernel(length), atol=1e-9, rtol=1e-7)
    u = torch.randn(2, 30, 3, dtype=torch.float64)
    torch.testing.assert_close(kept.recurrence().scan(u)[0], plain.recurrence().scan(u)[0], atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("init", ["legs", "legt"])
def test_gradients_of_every_parameter(init):
    ssm = untied(init, 1, 4)
    names = [name for name, _ in ssm.named_parameters()]

    class Kernel(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.ssm = ssm

        def forward(self):
            return self.ssm.kernel(7)

    def kernel(*values):
        return torch.func.functional_call(Kernel(), {f"ssm.{n}": v for n, v in zip(names, values, strict=True)})

    inputs = [v.detach().clone().requires_grad_() for v in ssm.parameters()]
    assert torch.autograd.gradcheck(kernel, inputs, rtol=1e-5, atol=1e-8)


def test_tied_stays_stable_under_wild_weights():
    torch.manual_seed(0)
    ssm = S4(4, 16)
    with torch.no_grad():
        for parameter in ssm.parameters():
            parameter.add_(2 * torch.randn_like(parameter))
    a, b, _ = real_form(*ssm.double().system())
    assert torch.linalg.eigvals(bilinear(a, b, ssm.log_dt.exp())[0]).abs().max() < 1
    assert torch.isfinite(ssm.kernel(1000)).all()


def test_single_precision():
    torch.manual_seed(0)
    ssm = S4(8, 64)
    single = ssm.kernel(1024)
    exact = ssm.double().kernel(1024)
    assert (single - exact).abs().max() < 1e-5 * exact.abs().max()


def test_forward_leaves_the_weights_alone():
    ssm = S4(2, 8)
    before = {k: v.clone() for k, v in ssm.state_dict().items()}
    for length in (5, 50):
        ssm.kernel(length)
    assert all(torch.equal(v, before[k]) for k, v in ssm.state_dict().items())


def test_odd_states():
    with pytest.raises(ValueError, match="even"):
        S4(2, 7)


def test_an_untied_system_that_would_blow_up_is_named():
    ssm = untied("legs")
    assert ssm.recurrence().scan(torch.randn(1, 2000, 3).double())[0].isfinite().all()
    with torch.no_grad():
        ssm.left[1].mul_(-3)
    with pytest.raises(ValueError, match=r"channel 1 multiplies its state by 5.8937 a step.*tied=True"):
        ssm.recurrence()
