import pytest
import torch

from ppmodels.nn.control import ControlNet, zero_conv
from ppmodels.nn.unet import UNet


@pytest.fixture
def parts():
    torch.manual_seed(0)
    base = UNet(1, 8, (1, 2), labels=3)
    torch.nn.init.normal_(base.last[-1].weight, std=0.1)  # a base that says something
    x, t, hint = torch.randn(4, 1, 8, 8), torch.arange(1, 5), torch.randn(4, 2, 8, 8)
    return base, x, t, hint


def test_before_training_it_is_the_base_exactly(parts):
    base, x, t, hint = parts
    told = base(x, t, torch.tensor([0, 1, 2, 3]))
    assert torch.equal(ControlNet(base, 2)(x, t, hint, torch.tensor([0, 1, 2, 3])), told)


def test_base_is_frozen_and_the_branch_wakes_after_one_step(parts):
    base, x, t, hint = parts
    before = {name: value.clone() for name, value in base.state_dict().items()}
    control = ControlNet(base, 2)
    trained = [p for p in control.parameters() if p.requires_grad]
    assert not any(p.requires_grad for p in control.base.parameters())
    optimiser = torch.optim.SGD(trained, 0.1)
    sizes = []
    for _ in range(3):
        optimiser.zero_grad()
        (control(x, t, hint) - 1).square().mean().backward()
        sizes.append(
            {
                "connections": sum(float(p.grad.abs().sum()) for p in control.bridges.parameters()),
                "branch": sum(float(p.grad.abs().sum()) for p in control.branch.parameters()),
                "hint": sum(float(p.grad.abs().sum()) for p in control.hint.parameters()),
            }
        )
        optimiser.step()
    assert sizes[0]["connections"] > 0
    assert sizes[0]["branch"] == sizes[0]["hint"] == 0  # behind zeros
    assert sizes[1]["branch"] > 0
    assert sizes[1]["hint"] > 0
    for name, value in control.base.state_dict().items():
        assert torch.equal(value, before[name])
    assert not torch.equal(control(x, t, hint), base(x, t))


def test_the_hint_comes_to_matter(parts):
    """It learns to make a picture lighter or darker by a hint that the base cannot see."""
    base, x, t, _ = parts
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0]).reshape(4, 1, 1, 1)
    hint, target = sign.expand(4, 2, 8, 8), (base(x, t) + 0.3 * sign).detach()
    control = ControlNet(base, 2)
    optimiser = torch.optim.Adam([p for p in control.parameters() if p.requires_grad], 1e-2)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = (control(x, t, hint) - target).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_zero_convolution_learns_at_once():
    layer = zero_conv(3)
    layer(torch.randn(2, 3, 4, 4)).sum().backward()
    assert float(layer.weight.grad.abs().sum()) > 0


def test_hint_of_another_size(parts):
    base, x, t, hint = parts
    with pytest.raises(ValueError, match="a hint must have the size of the image"):
        ControlNet(base, 2)(x, t, hint[..., :4])
