import pytest
import torch

from ppmodels.diffusion.distance import sliced_wasserstein
from ppmodels.diffusion.langevin import annealed_langevin, langevin, noise_ladder


@pytest.mark.parametrize("step_size", [0.1, 0.5, 1.0])
def test_stationary_variance_of_the_unadjusted_walk(exact_variance, step_size):
    told = exact_variance(lambda x: langevin(lambda v: -v, x, step_size=step_size, num_steps=300), 1.0, size=400)
    assert told == pytest.approx(1 / (1 - step_size / 2), rel=1e-10)


def test_annealing_reaches_every_mode(ring, seeded):
    """Plain Langevin stays where it starts; the ladder carries it to all eight clusters."""
    sigmas = noise_ladder(4.0, 0.05, 12)
    x = 4 * torch.randn(2000, 2, generator=seeded(), dtype=torch.float64)

    def score(v, sigma):
        return ring.score(v, 1.0, sigma[:, None])

    drawn = annealed_langevin(score, x, sigmas, step_size=2e-4, num_steps=40, generator=seeded(1))
    truth = ring.sample(2000, seeded(2))[0]
    assert float(sliced_wasserstein(drawn, truth, generator=seeded(3))) < 0.15
    shares = torch.bincount(ring.log_label(drawn).argmax(-1), minlength=8) / 2000
    assert float(shares.min()) > 0.08


def test_last_step_takes_the_last_noise_away(gaussian, seeded):
    world, sigmas = gaussian(1.0), noise_ladder(5.0, 1.0, 6)
    x = 5 * torch.randn(10_000, 1, generator=seeded(), dtype=torch.float64)
    rough, smooth = (
        annealed_langevin(
            lambda v, s: world.score(v, 1.0, s[:, None]), x, sigmas,
            step_size=0.05, num_steps=100, denoise=denoise, generator=seeded(1),
        )
        for denoise in (False, True)
    )  # fmt: skip
    assert float(rough.var()) == pytest.approx(2.0, abs=0.15)
    torch.testing.assert_close(smooth, rough / 2)  # E[x_0 | x] with both variances 1


def test_ladder_is_geometric():
    ratio = noise_ladder(10.0, 0.01, 10).log().diff()
    torch.testing.assert_close(ratio, ratio[:1].expand(9))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: langevin(lambda v: v, torch.zeros(1, 1), step_size=0.0, num_steps=1), "step_size must be positive"),
        (lambda: noise_ladder(0.1, 1.0, 5), "fall from sigma_max"),
        (lambda: annealed_langevin(torch.add, torch.zeros(1, 1), torch.tensor([0.1, 1.0])), "falling"),
    ],
)
def test_bad_input_gets_one_clear_line(call, says):
    with pytest.raises(ValueError, match=says):
        call()
