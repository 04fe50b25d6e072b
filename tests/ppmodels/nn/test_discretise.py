import pytest
import torch

from ppmodels.nn.discretise import backward_euler, bilinear, diagonal, forward_euler, zero_order_hold
from ppmodels.nn.hippo import transition

A, B = transition("legs", 6)


@pytest.mark.parametrize(("rule", "ratio"), [(bilinear, 8), (forward_euler, 4), (backward_euler, 4)])
def test_order_of_each_rule(rule, ratio):
    steps = [2.0**-k for k in (9, 10, 11)]
    errors = [(torch.linalg.matrix_exp(A * s) - rule(A, B, s)[0]).norm().item() for s in steps]
    assert errors[0] / errors[1] == pytest.approx(ratio, rel=0.05)
    assert errors[1] / errors[2] == pytest.approx(ratio, rel=0.05)


@pytest.mark.parametrize("step", [1e-3, 0.1, 1.0, 10.0, 1e3])
@pytest.mark.parametrize("rule", [bilinear, backward_euler, zero_order_hold])
def test_stable_at_every_step(rule, step):
    assert torch.linalg.eigvals(rule(A, B, step)[0]).abs().max() < 1


def test_forward_euler_is_not():
    assert torch.linalg.eigvals(forward_euler(A, B, 1.0)[0]).abs().max() > 1


def test_hold_is_exact_for_a_constant_input_even_when_singular():
    a = torch.tensor([[0.0, 1.0], [0.0, 0.0]]).double()
    a_bar, b_bar = zero_order_hold(a, torch.tensor([0.0, 1.0]).double(), 0.5)
    torch.testing.assert_close(a_bar, torch.tensor([[1.0, 0.5], [0.0, 1.0]]).double())
    torch.testing.assert_close(b_bar, torch.tensor([0.125, 0.5]).double())


@pytest.mark.parametrize(("method", "rule"), [("zoh", zero_order_hold), ("bilinear", bilinear)])
def test_diagonal_is_the_dense_rule(method, rule):
    values = torch.tensor([-0.5, -3.0, -40.0]).double()
    log_bar, gain = diagonal(values, torch.tensor(0.3).double(), method)
    a_bar, b_bar = rule(torch.diag(values), torch.ones(3).double(), 0.3)
    torch.testing.assert_close(log_bar.exp(), a_bar.diagonal().to(log_bar.dtype))
    torch.testing.assert_close(gain, b_bar)


def test_diagonal_at_zero_and_where_bilinear_forgets_at_once():
    zero = torch.zeros(1).double().requires_grad_()
    log_bar, gain = diagonal(zero, torch.tensor(0.1, dtype=torch.float64), "zoh")
    gain.sum().backward()
    assert log_bar.item() == 0
    assert gain.item() == 0.1
    assert torch.isfinite(zero.grad).all()
    log_bar, _ = diagonal(torch.tensor([-20.0]).double(), torch.tensor(0.1, dtype=torch.float64), "bilinear")
    assert (log_bar * torch.arange(3)).exp().real.tolist() == pytest.approx([1, 0, 0], abs=1e-300)
    with pytest.raises(ValueError, match="no discretisation"):
        diagonal(A, torch.tensor(1.0), "euler")
