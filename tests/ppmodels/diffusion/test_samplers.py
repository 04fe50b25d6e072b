import pytest
import torch

from ppmodels.diffusion.distance import sliced_wasserstein
from ppmodels.diffusion.parametrisation import Denoiser
from ppmodels.diffusion.samplers import ancestral, sample
from ppmodels.diffusion.schedule import edm, linear

SCHEDULE = linear()


@pytest.mark.parametrize(("variance", "told"), [("beta", 3.9906), ("posterior", 3.9748)])
def test_ancestral_output_variance(gaussian, exact_variance, variance, told):
    """x_T ~ N(0, 1), a thousand steps, no noise in the last one."""
    denoiser = Denoiser(gaussian(4.0).network(SCHEDULE), SCHEDULE)
    assert exact_variance(lambda x: ancestral(denoiser, x, variance=variance), 1.0) == pytest.approx(told, abs=6e-5)


def test_few_ancestral_steps_bracket_the_truth(gaussian, exact_variance):
    """With 50 of 1000 steps the small variance is too small and the large one too large."""
    denoiser = Denoiser(gaussian(0.25).network(SCHEDULE), SCHEDULE)
    small, large = (
        exact_variance(lambda x, v=v: ancestral(denoiser, x, num_inference_steps=50, variance=v), 1.0) ** 0.5
        for v in ("posterior", "beta")
    )
    assert small == pytest.approx(0.443, abs=0.01)
    assert large == pytest.approx(0.518, abs=0.01)


def test_ancestral_samples_come_from_the_mixture(ring, seeded):
    x = torch.randn(3000, 2, generator=seeded(), dtype=torch.float64)
    drawn = ancestral(Denoiser(ring.network(SCHEDULE), SCHEDULE), x, num_inference_steps=100, generator=seeded(1))
    truth, other = (ring.sample(3000, seeded(s))[0] for s in (2, 3))
    assert float(sliced_wasserstein(truth, other, generator=seeded(4))) < 0.12
    assert float(sliced_wasserstein(drawn, truth, generator=seeded(4))) < 0.12


@pytest.mark.parametrize("method", ["ancestral", "ddim", "pndm", "dpmpp_2m", "dpmpp_3m", "heun"])
@pytest.mark.parametrize("schedule", [linear(), edm()], ids=["linear", "edm"])
def test_one_door_to_every_sampler(ring, seeded, method, schedule):
    steps = 100 if method in ("ancestral", "ddim") else 40
    options = {} if method not in ("ancestral", "ddim") else {"spacing": "karras"}
    drawn = sample(
        ring.network(schedule), schedule, (2000, 2), method=method, num_inference_steps=steps,
        generator=seeded(1), like=ring.loc, **options,
    )  # fmt: skip
    truth, other = (ring.sample(2000, seeded(s))[0] for s in (2, 3))
    assert drawn.dtype == torch.float64
    assert float(sliced_wasserstein(truth, other, generator=seeded(4))) < 0.15
    assert float(sliced_wasserstein(drawn, truth, generator=seeded(4))) < 0.15


def test_the_door_repeats_itself(ring, seeded):
    once, again = (
        sample(ring.network(SCHEDULE), SCHEDULE, (4, 2), method="ddim", eta=1.0, generator=seeded(5), like=ring.loc)
        for _ in range(2)
    )
    torch.testing.assert_close(once, again, rtol=0, atol=0)


def test_guidance_through_the_door(ring, seeded):
    network, label = ring.conditional_network(SCHEDULE), torch.full((500,), 3)
    drawn = sample(
        network, SCHEDULE, (500, 2), label=label, guidance_scale=2.0, null_label=8,
        generator=seeded(), like=ring.loc,
    )  # fmt: skip
    assert float((drawn - ring.loc[3]).norm(dim=-1).max()) < 1.5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "magic"}, "no method 'magic'"),
        ({"guidance_scale": 3.0}, "guidance_scale 3.0 needs a label"),
        ({"guidance_scale": 3.0, "label": torch.zeros(4).long()}, "needs null_label"),
        ({"label": torch.zeros(3).long()}, r"labels must be \(4,\)"),
        ({"num_inference_steps": 2000, "method": "ddim"}, "between 1 and 1000"),
        ({"method": "ancestral", "variance": "none"}, "no variance 'none'"),
        ({"method": "heun", "variable": "t"}, "no variable 't'"),
        ({"method": "pndm", "order": 5}, "order must be"),
    ],
)
def test_bad_input_gets_one_clear_line(ring, options, says):
    network = ring.network(SCHEDULE)
    with pytest.raises(ValueError, match=says):
        sample(lambda x, t, label=None: network(x, t), SCHEDULE, (4, 2), like=ring.loc, **options)
