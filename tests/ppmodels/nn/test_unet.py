import pytest
import torch

from ppmodels.nn.unet import SelfAttention2d, UNet
from tests.ppmodels.nn.networks import randomised


@pytest.mark.parametrize("multiples", [(1,), (1, 2), (1, 2, 2), (2, 4)])
@pytest.mark.parametrize("blocks", [1, 2])
def test_output_is_an_image_of_the_same_size(multiples, blocks):
    network = UNet(3, 8, multiples, blocks)
    x, t = torch.randn(2, 3, 8, 12), torch.tensor([1, 500])
    assert torch.equal(network(x, t), torch.zeros_like(x))
    assert bool(randomised(network)(x, t).any())


def test_every_parameter_is_used():
    network = randomised(UNet(1, 8, (1, 2), labels=3))
    network(torch.randn(2, 1, 8, 8), torch.ones(2), torch.tensor([0, 2])).square().sum().backward()
    idle = [n for n, p in network.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert idle == []


def test_rows_are_independent_and_time_and_label_matter():
    network = randomised(UNet(1, 8, (1, 2), labels=3))
    x, t, label = torch.randn(3, 1, 8, 8), torch.arange(3), torch.arange(3)
    told = network(x, t, label)
    torch.testing.assert_close(told[1:2], network(x[1:2], t[1:2], label[1:2]), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(told, network(x, t + 300, label))
    assert not torch.allclose(told, network(x, t, label.flip(0)))
    torch.testing.assert_close(network(x, t), network(x, t, torch.full((3,), 3)))


def test_far_corners_see_each_other():
    network = randomised(UNet(1, 8, (1, 2)))
    x = torch.randn(1, 1, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(x, torch.ones(1))[0, 0, 0, 0], x)
    assert float(gradient[0, 0, -1, -1].abs()) > 0


def test_attention_is_blind_to_the_order_of_places():
    layer = randomised(SelfAttention2d(8))
    x = torch.randn(2, 8, 3, 4)
    order = torch.randperm(12)
    shuffled = x.flatten(2)[..., order].reshape(x.shape)
    told = layer(x).flatten(2)[..., order].reshape(x.shape)
    torch.testing.assert_close(layer(shuffled), told, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: UNet(1, 8)(torch.zeros(2, 3, 8, 8), torch.ones(2)), r"\(B, 1, H, W\)"),
        (lambda: UNet(1, 8)(torch.zeros(2, 1, 7, 8), torch.ones(2)), "multiples of 2"),
        (lambda: UNet(1, 12), "multiple of 8"),
        (lambda: UNet(1, 8)(torch.zeros(2, 1, 8, 8), torch.ones(2), torch.zeros(2).long()), "without labels"),
    ],
)
def test_bad_input_gets_one_clear_line(call, says):
    with pytest.raises(ValueError, match=says):
        call()
