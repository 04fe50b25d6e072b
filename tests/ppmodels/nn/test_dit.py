"""Diffusion transformer: silent at first, everything used, rows apart, time and label heard; learned with averages."""

import pytest
import torch

from inference.training import Training
from ppmodels.diffusion.loss import noise_loss
from ppmodels.diffusion.parametrisation import Denoiser
from ppmodels.diffusion.samplers import sample
from ppmodels.diffusion.schedule import cosine
from ppmodels.nn.dit import AdaptiveBlock, DiffusionTransformer
from tests.ppmodels.nn.networks import randomised


@pytest.mark.parametrize(("shape", "patch"), [((1, 8, 8), 2), ((3, 4, 6), 1), ((2, 6, 9), 3)])
def test_output_is_an_image_of_the_same_size_and_zero_at_first(shape, patch):
    network = DiffusionTransformer(shape, patch, width=8, layers=2, heads=2)
    x, t = torch.randn(2, *shape), torch.tensor([1, 500])
    assert torch.equal(network(x, t), torch.zeros_like(x))
    assert bool(randomised(network)(x, t).any())


def test_a_block_is_the_identity_at_first():
    h = torch.randn(3, 5, 8)
    assert torch.equal(AdaptiveBlock(8, 2)(h, torch.randn(3, 8)), h)


def test_every_parameter_is_used():
    network = randomised(DiffusionTransformer((1, 4, 4), 2, width=8, layers=2, heads=2, labels=3))
    network(torch.randn(2, 1, 4, 4), torch.ones(2), torch.tensor([0, 2])).square().sum().backward()
    idle = [n for n, p in network.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert idle == []


def test_rows_are_independent_and_time_and_label_matter():
    network = randomised(DiffusionTransformer((1, 4, 4), 2, width=8, layers=2, heads=2, labels=3)).double()
    x, t, label = torch.randn(3, 1, 4, 4).double(), torch.arange(3), torch.arange(3)
    told = network(x, t, label)
    torch.testing.assert_close(told[1:2], network(x[1:2], t[1:2], label[1:2]), rtol=0, atol=1e-12)
    assert not torch.allclose(told, network(x, t + 300, label))
    assert not torch.allclose(told, network(x, t, label.flip(0)))
    torch.testing.assert_close(network(x, t), network(x, t, torch.full((3,), 3)))
    turned = network(x.flip(-1), t, label).flip(-1)
    assert not torch.allclose(told, turned)  # it knows where a patch lies


def test_bad_input_gets_one_clear_line():
    network = DiffusionTransformer((1, 4, 4), 2, width=8, layers=1, heads=2)
    with pytest.raises(ValueError, match=r"expected images of shape \(1, 4, 4\)"):
        network(torch.zeros(2, 1, 4, 6), torch.ones(2))
    with pytest.raises(ValueError, match="without labels"):
        network(torch.zeros(2, 1, 4, 4), torch.ones(2), torch.zeros(2).long())
    with pytest.raises(ValueError, match="does not divide"):
        DiffusionTransformer((1, 4, 5), 2, width=8)


def test_averaged_weights_of_the_loop_sample_two_classes(tmp_path):
    """Images that are bright or dark, told by class: learned with an average that is kept and resumed exactly."""
    torch.manual_seed(0)
    schedule, label = cosine(100), torch.arange(200) % 2
    x = (2.0 * label[:, None, None, None] - 1) + 0.2 * torch.randn(200, 1, 2, 2)

    def learn(num_steps, checkpoint=None, stop_at=None):
        torch.manual_seed(1)
        network = DiffusionTransformer((1, 2, 2), 1, width=16, layers=1, heads=2, labels=2)
        generator = torch.Generator().manual_seed(2)

        def loss(rows):
            if run.step == stop_at:
                raise KeyboardInterrupt
            generator.manual_seed(run.step)  # noise belongs to the step, so that a resumed run has the same
            told = Denoiser(lambda x, t: network(x, t, label[rows]), schedule, "v")
            return noise_loss(told, x[rows], generator=generator).mean()

        run = Training(
            num_steps, 5e-3, rows=200, batch_size=50, ema=0.98, checkpoint=checkpoint, window=50, clip=1.0
        )  # fmt: skip
        return run.run(loss, network), network

    run, network = learn(300)
    with pytest.raises(KeyboardInterrupt):
        learn(300, tmp_path / "run.safetensors", stop_at=151)
    again, _ = learn(300, tmp_path / "run.safetensors")
    assert all(torch.equal(value, again.average.values[name]) for name, value in run.average.values.items())
    with run.averaged(), torch.no_grad():
        for kind, mean in ((0, -1.0), (1, 1.0)):
            drawn = sample(
                network, schedule, (100, 1, 2, 2), prediction_type="v", label=torch.full((100,), kind),
                generator=torch.Generator().manual_seed(3),
            )  # fmt: skip
            assert float(drawn.mean()) == pytest.approx(mean, abs=0.1)
            assert float(drawn.std()) == pytest.approx(0.2, abs=0.1)
