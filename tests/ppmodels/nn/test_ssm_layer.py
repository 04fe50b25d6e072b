import pytest
import torch

from ppmodels.nn.ssm_layer import SSMLayer


def layer(system="s4d", dtype=torch.float64, **options):
    torch.manual_seed(0)
    return SSMLayer(4, system, states=8, **options).to(dtype).eval()


@torch.no_grad()
@pytest.mark.parametrize("system", ["s4d", "s4"])
@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("length", [1, 37, 128])
def test_convolution_is_the_recurrence(system, gate, length):
    part = layer(system, gate=gate)
    u = torch.randn(2, length, 4, dtype=torch.float64)
    state, outputs = part.default_state(2), []
    for now in u.unbind(1):
        y, state = part.step(now, state)
        outputs.append(y)
    torch.testing.assert_close(torch.stack(outputs, 1), part(u), atol=1e-10, rtol=0)


@torch.no_grad()
def test_convolution_is_the_direct_sum_with_the_skip():
    part = layer()
    u = torch.randn(1, 50, 4, dtype=torch.float64)
    kernel = part.ssm.kernel(50)
    direct = torch.stack([(kernel[:, : t + 1].flip(-1).mT * u[0, : t + 1]).sum(0) for t in range(50)])
    torch.testing.assert_close(part._convolve(u, 1.0)[0], direct + part.skip * u[0], atol=1e-10, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("system", ["s4d", "s4"])
@pytest.mark.parametrize("rate", [1.0, 2.0])
def test_stretches_are_the_whole(system, rate):
    part = layer(system)
    u = torch.randn(2, 90, 4, dtype=torch.float64)
    state, outputs = part.default_state(2, rate), []
    for stretch in u.split([1, 40, 49], 1):
        y, state = part.prefill(stretch, state)
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, 1), part(u, rate), atol=1e-10, rtol=0)


@torch.no_grad()
def test_bidirectional_is_two_readings():
    part = layer(bidirectional=True)
    u = torch.randn(1, 30, 4, dtype=torch.float64)
    forward, _ = part.ssm.recurrence().scan(u)
    backward, _ = part.reverse.recurrence().scan(u.flip(1))
    shifted = torch.cat([backward.flip(1)[:, 1:], torch.zeros(1, 1, 4)], 1)  # the future begins at the next
    torch.testing.assert_close(part._convolve(u, 1.0), forward + shifted + part.skip * u, atol=1e-10, rtol=0)
    with pytest.raises(ValueError, match="future"):
        part.default_state()


@pytest.mark.parametrize("system", ["s4d", "s4"])
def test_same_outputs_after_training(system):
    """Trained as a convolution in single precision, run as a recurrence."""
    part = layer(system, torch.float32).train()
    torch.manual_seed(1)
    u = torch.randn(8, 64, 4)
    target = torch.roll(u, 5, 1)
    before = part.ssm.kernel(64).detach().clone()
    optimiser = torch.optim.Adam(part.parameters(), 1e-2)
    for _ in range(30):
        optimiser.zero_grad()
        loss = (part(u) - target).square().mean()
        loss.backward()
        optimiser.step()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in part.parameters())
    assert (part.ssm.kernel(64) - before).abs().max() > 0.01
    with torch.no_grad():
        state, outputs = part.default_state(8), []
        for now in u.unbind(1):
            y, state = part.step(now, state)
            outputs.append(y)
        assert (torch.stack(outputs, 1) - part(u)).abs().max() < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("system", ["s4d", "s4"])
def test_mixed_precision_leaves_the_kernel_whole(system):
    part = layer(system, torch.float32)
    u = torch.randn(2, 100, 4)
    with torch.autocast("cpu", torch.bfloat16):
        inside = part._convolve(u, 1.0)
        assert part(u.bfloat16()).dtype == torch.bfloat16
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, part._convolve(u, 1.0))


@pytest.mark.parametrize("system", ["s4d", "s4"])
def test_many_weights_at_once_and_second_derivatives(system):
    """What an engine for many chains, and a Laplace approximation, will ask of it."""
    part, u = layer(system), torch.randn(1, 20, 4, dtype=torch.float64)
    values = {name: value.detach() for name, value in part.named_parameters()}

    def energy(values):
        return torch.func.functional_call(part, values, (u,)).square().sum()

    many = {name: torch.stack([value, 1.01 * value]) for name, value in values.items()}
    batched = torch.func.vmap(energy)(many)
    single = torch.stack([energy({k: v[i] for k, v in many.items()}) for i in range(2)])
    torch.testing.assert_close(batched, single)
    steps = values["ssm.log_dt"]
    curvature = torch.autograd.functional.hessian(lambda x: energy({**values, "ssm.log_dt": x}), steps)
    width = 1e-4
    for i in range(4):
        shift = width * torch.eye(4, dtype=torch.float64)[i]
        ends = [energy({**values, "ssm.log_dt": steps + s * shift}) for s in (-1, 0, 1)]
        assert curvature[i, i].item() == pytest.approx(((ends[0] - 2 * ends[1] + ends[2]) / width**2).item(), rel=1e-3)


@pytest.mark.parametrize("system", ["s4d", "s4"])
def test_device_follows_the_data(system):
    """The meta device refuses any tensor from elsewhere."""
    part = layer(system, torch.float32, bidirectional=True).to("meta")
    assert part(torch.zeros(2, 9, 4, device="meta")).device.type == "meta"
    part = layer(system, torch.float32).to("meta")
    y, _ = part.prefill(torch.zeros(2, 9, 4, device="meta"), part.default_state(2))
    assert y.shape == (2, 9, 4)


def test_one_clear_line_for_what_cannot_be():
    with pytest.raises(ValueError, match="no system"):
        SSMLayer(4, "s5")
    for shape in ((2, 0, 4), (2, 3, 5), (3, 4)):
        with pytest.raises(ValueError, match="expected"):
            layer()(torch.zeros(shape, dtype=torch.float64))
