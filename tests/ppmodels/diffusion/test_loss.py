"""Training by the noise loss: a few lines of torch, judged by what is sampled."""

import pytest
import torch

from ppmodels.diffusion.distance import sliced_wasserstein
from ppmodels.diffusion.guidance import drop_labels
from ppmodels.diffusion.loss import noise_loss
from ppmodels.diffusion.parametrisation import PREDICTIONS, Denoiser
from ppmodels.diffusion.samplers import sample
from ppmodels.diffusion.schedule import cosine, linear
from ppmodels.nn.denoiser import MLPDenoiser

SCHEDULE = cosine(200)


def train(network, loss, data, steps, seeded, lr=3e-3, batch=512):
    optimiser = torch.optim.Adam(network.parameters(), lr=lr)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = seeded(11)
    for _ in range(steps):
        index = torch.randint(len(data), (batch,), generator=generator)
        optimiser.zero_grad()
        loss(index, generator).mean().backward()
        optimiser.step()
        decay.step()


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
def test_perfect_network_has_the_least_loss(ring, seeded, prediction_type):
    schedule = linear()
    perfect = ring.network(schedule, prediction_type)
    x0 = ring.sample(4000, seeded())[0]
    best, worse = (
        noise_loss(
            Denoiser(lambda x, t, f=factor: f * perfect(x, t), schedule, prediction_type), x0, generator=seeded(1)
        ).mean()
        for factor in (1.0, 0.8)
    )
    assert float(best) < float(worse)


def test_training_on_two_dimensional_data(ring, seeded):
    data = ring.sample(5000, seeded())[0].float()
    torch.manual_seed(0)
    network = MLPDenoiser(2, 64, 3)
    denoiser = Denoiser(network, SCHEDULE)

    def loss(index, generator):
        return noise_loss(denoiser, data[index], generator=generator)

    def quality():
        with torch.no_grad():
            drawn = sample(network, SCHEDULE, (2000, 2), num_inference_steps=25, generator=seeded(2))
        return float(sliced_wasserstein(drawn, held_out, generator=seeded(3)))

    held_out = ring.sample(2000, seeded(4))[0].float()
    before = quality()
    train(network, loss, data, 350, seeded)
    assert quality() < 0.2 < before / 2


@pytest.mark.slow
def test_longer_training_reaches_the_sampling_floor(ring, seeded):
    data = ring.sample(20_000, seeded())[0].float()
    torch.manual_seed(0)
    network = MLPDenoiser(2, 128, 4)
    denoiser = Denoiser(network, SCHEDULE)
    train(network, lambda i, g: noise_loss(denoiser, data[i], generator=g), data, 2500, seeded, 2e-3)
    with torch.no_grad():
        drawn = sample(network, SCHEDULE, (4000, 2), num_inference_steps=25, generator=seeded(2))
    held_out = ring.sample(4000, seeded(4))[0].float()
    assert float(sliced_wasserstein(drawn, held_out, generator=seeded(3))) < 0.1


def test_conditional_generator_with_a_null_token(ring, seeded):
    data, label = ring.sample(5000, seeded())
    data = data.float()
    torch.manual_seed(0)
    network = MLPDenoiser(2, 64, 3, labels=8)

    def loss(index, generator):
        told = drop_labels(label[index], network.null_label, 0.15, generator)
        return noise_loss(Denoiser(lambda x, t: network(x, t, told), SCHEDULE), data[index], generator=generator)

    train(network, loss, data, 350, seeded)
    wanted = torch.arange(800) % 8
    hits = []
    for scale in (1.0, 2.0):
        with torch.no_grad():
            drawn = sample(
                network, SCHEDULE, (800, 2), label=wanted, guidance_scale=scale,
                null_label=network.null_label, generator=seeded(2),
            )  # fmt: skip
        hits.append(float((ring.log_label(drawn.double()).argmax(-1) == wanted).double().mean()))
    assert hits[0] > 0.85
    assert hits[1] >= hits[0]


def test_unknown_weighting(ring):
    with pytest.raises(ValueError, match="no weighting 'best'"):
        noise_loss(Denoiser(ring.network(SCHEDULE), SCHEDULE), torch.zeros(2, 2), weighting="best")
