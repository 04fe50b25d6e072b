import pytest
import torch

from ppmodels.diffusion.editing import image_to_image, inpaint
from ppmodels.diffusion.mixture import NoisedMixture
from ppmodels.diffusion.parametrisation import Denoiser
from ppmodels.diffusion.schedule import linear

SCHEDULE = linear()


@pytest.fixture
def pair():
    """Two coordinates with variance 1 and correlation 0.8."""
    covariance = torch.tensor([[[1.0, 0.8], [0.8, 1.0]]], dtype=torch.float64)
    return NoisedMixture(torch.ones(1).double(), torch.zeros(1, 2).double(), covariance)


def test_inpainting_keeps_what_is_known_and_conditions_the_rest(pair, seeded):
    """x_2 given x_1 = 1.5 is N(1.2, 0.36)."""
    x0 = torch.tensor([[1.5, 0.0]], dtype=torch.float64).expand(3000, 2)
    known = torch.tensor([True, False])
    denoiser = Denoiser(pair.network(SCHEDULE), SCHEDULE)
    careful, hasty = (
        inpaint(denoiser, x0, known, num_inference_steps=50, resamples=visits, generator=seeded(1))
        for visits in (20, 1)
    )
    assert torch.equal(careful[:, 0], x0[:, 0])
    assert float(careful[:, 1].mean()) == pytest.approx(1.2, abs=0.05)
    assert float(careful[:, 1].var()) == pytest.approx(0.36, abs=0.05)
    assert abs(float(hasty[:, 1].mean()) - 1.2) > 2 * abs(float(careful[:, 1].mean()) - 1.2)


def test_image_to_image_goes_from_the_same_to_something_else(ring, seeded):
    denoiser = Denoiser(ring.network(SCHEDULE), SCHEDULE)
    x0, label = ring.sample(400, seeded())
    moved, stayed = [], []
    for strength in (0.0, 0.1, 0.3, 1.0):
        after = image_to_image(denoiser, x0, strength=strength, generator=seeded(1))
        moved.append(float((after - x0).norm(dim=-1).mean()))
        stayed.append(float((ring.log_label(after).argmax(-1) == label).double().mean()))
    assert moved[0] == 0
    assert stayed[0] == 1
    assert stayed[1] > 0.9 > stayed[2] > stayed[3]
    assert stayed[3] == pytest.approx(1 / 8, abs=0.06)
    assert moved == sorted(moved)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda d, x: image_to_image(d, x, strength=1.2), "strength lies between 0 and 1; got 1.2"),
        (lambda d, x: inpaint(d, x, torch.ones(2)), "known must be Boolean"),
        (lambda d, x: inpaint(d, x, torch.ones(3, dtype=torch.bool)), r"known \(3,\) does not fit"),
        (lambda d, x: inpaint(d, x, torch.ones(2, dtype=torch.bool), resamples=0), "resamples must be positive"),
    ],
)
def test_bad_input_gets_one_clear_line(pair, call, says):
    with pytest.raises(ValueError, match=says):
        call(Denoiser(pair.network(SCHEDULE), SCHEDULE), torch.zeros(4, 2).double())
