import math
from itertools import pairwise

import pytest
import torch

from ppmodels.diffusion.bound import prior_divergence
from ppmodels.diffusion.schedule import Schedule, cosine, edm, from_betas, linear, posterior


def test_linear_schedule_of_a_thousand_steps():
    schedule = linear(1000, 1e-4, 0.02)
    assert schedule.steps == 1000
    assert float(schedule.alpha_bar[-1]) == pytest.approx(4.0358e-5, abs=5e-10)
    assert float(schedule.alpha[-1]) == pytest.approx(0.006352818088, abs=1e-12)
    assert float(schedule.sigma[-1] ** 2) == pytest.approx(0.999959641702, abs=1e-12)
    torch.testing.assert_close(
        schedule.beta[1:], torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), atol=1e-12, rtol=0
    )


def test_prior_divergence_in_nats_a_dimension():
    x0 = torch.ones(1, 16, dtype=torch.float64)  # |x_0|^2 / d = 1
    assert float(prior_divergence(x0, linear().at(1000))) / 16 == pytest.approx(2.018e-5, abs=5e-9)


def test_composed_chain_is_the_closed_form():
    schedule = linear()
    mean, variance = 1.0, 0.0
    for t in range(1, 1001):
        beta = float(schedule.beta[t])
        mean, variance = math.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
        assert mean == pytest.approx(float(schedule.alpha[t]), abs=1e-12)
        assert variance == pytest.approx(float(schedule.sigma[t] ** 2), abs=1e-12)


def test_forward_limit_is_standard_normal():
    x0 = 3 + torch.randn(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)[:, None]
    noise = torch.randn(100_000, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = linear().add_noise(x0, noise, torch.full((100_000,), 1000))
    assert abs(float(x.mean())) < 0.03
    assert float(x.var()) == pytest.approx(1, abs=0.02)


def test_posterior_variance_at_the_second_step():
    schedule = linear()
    assert posterior(schedule.at(1), schedule.at(2)).variance == pytest.approx(5.4532e-5, abs=5e-10)


@pytest.mark.parametrize(("s", "t"), [(1, 2), (499, 500), (200, 700), (0, 3)])
def test_posterior_is_bayes_rule(s, t):
    """Prior N(alpha_s x0, sigma_s^2) on x_s times the likelihood N(x_t; ratio x_s, forward)."""
    schedule = linear()
    before, after = schedule.at(s), schedule.at(t)
    law = posterior(before, after)
    ratio = after.alpha / before.alpha
    x_t, x_0 = 0.7, -1.3
    if s == 0:
        assert (law.of_x, law.of_x0, law.variance) == (0, pytest.approx(1, abs=1e-12), 0)
        return
    precision = 1 / before.sigma**2 + ratio**2 / law.forward
    mean = (before.alpha * x_0 / before.sigma**2 + ratio * x_t / law.forward) / precision
    assert law.variance == pytest.approx(1 / precision, rel=1e-10)
    assert law.of_x * x_t + law.of_x0 * x_0 == pytest.approx(mean, abs=1e-10)


def test_posterior_mean_in_epsilon_is_the_mean_in_x0():
    schedule = linear()
    x_0, epsilon = 0.4, -1.1
    for t in (2, 10, 500, 1000):
        here, beta = schedule.at(t), float(schedule.beta[t])
        law = posterior(schedule.at(t - 1), here)
        x_t = here.alpha * x_0 + here.sigma * epsilon
        in_epsilon = (x_t - beta * epsilon / here.sigma) / math.sqrt(1 - beta)
        assert law.of_x * x_t + law.of_x0 * x_0 == pytest.approx(in_epsilon, abs=1e-10)


def test_equal_variance_divergence_is_half_the_squared_gap():
    normal = torch.distributions.Normal
    a, b = normal(torch.tensor(0.3), 0.7), normal(torch.tensor(-0.4), 0.7)
    kl = torch.distributions.kl_divergence(a, b)
    assert float(kl) == pytest.approx(0.7**2 / (2 * 0.7**2), rel=1e-6)


@pytest.mark.parametrize("schedule", [linear(), cosine(), edm()], ids=["linear", "cosine", "edm"])
def test_schedules_lose_signal_at_every_step(schedule):
    assert bool((schedule.log_snr.diff()[1:] < 0).all())
    assert bool((schedule.alpha_bar.diff() < 0).all())


def test_edm_levels_are_karras():
    schedule = edm(18, 0.002, 80.0)
    i = torch.arange(18, dtype=torch.float64)
    karras = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    told = torch.tensor([level.sigma for level in schedule.grid(18)[:-1]], dtype=torch.float64)
    torch.testing.assert_close(told, karras)
    times = edm(1000).grid(18, "karras")
    torch.testing.assert_close(torch.tensor([level.sigma for level in times[:-1]]).double(), karras, rtol=1e-3, atol=0)


def test_fractional_times_lie_between_and_whole_ones_are_the_table():
    schedule = linear()
    x = torch.zeros(3, 1, dtype=torch.float64)
    alpha, sigma = schedule.level(torch.tensor([1.0, 1.5, 2.0], dtype=torch.float64), x)
    torch.testing.assert_close(alpha[[0, 2], 0], schedule.alpha[[1, 2]], rtol=0, atol=0)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(3, 1, dtype=torch.float64))
    assert float(schedule.sigma[1]) < float(sigma[1]) < float(schedule.sigma[2])


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing", "log_snr", "karras", "angle", "balanced"])
@pytest.mark.parametrize("steps", [1, 2, 10, 999, 1000])
def test_grids_fall_to_the_data(spacing, steps):
    grid = linear().grid(steps, spacing)
    assert len(grid) == steps + 1
    assert (grid[-1].t, grid[-1].alpha, grid[-1].sigma) == (0, 1, 0)
    noise = [level.sigma / level.alpha for level in grid]
    assert all(a > b for a, b in pairwise(noise))  # no level twice, also at n = T


def test_log_snr_spacing_is_even():
    grid = linear().grid(12, "log_snr")[:-1]
    half = torch.tensor([math.log(level.alpha / level.sigma) for level in grid], dtype=torch.float64)
    torch.testing.assert_close(half.diff(), half.diff().mean().expand(11), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: linear().at(1001), "between 1 and 1000; got 1001"),
        (lambda: linear().at(-1), "between 1 and 1000; got -1"),
        (lambda: linear().at(0.5), "between 1 and 1000; got 0.5"),
        (lambda: linear().grid(1001), "num_inference_steps must be between 1 and 1000; got 1001"),
        (lambda: linear().grid(0, "karras"), "num_inference_steps must be positive; got 0"),
        (lambda: linear().grid(10, "even"), "no spacing 'even'"),
        (lambda: linear().grid(10, start=1200), "starts between 1 and 1000; got 1200"),
        (lambda: from_betas(torch.tensor([0.1, 0.0])), "strictly between 0 and 1"),
        (lambda: from_betas(torch.tensor([0.1, 1.0])), "strictly between 0 and 1"),
        (lambda: edm(10, 2.0, 1.0), "positive and rising; got 2.0, 1.0"),
        (lambda: Schedule(torch.ones(3), torch.tensor([0.0, 2.0, 1.0])), "does not at step 2"),
        (lambda: Schedule(torch.ones(3), torch.zeros(2)), "one shape"),
        (lambda: Schedule(torch.ones(2), torch.ones(2)), "step 0 is the data"),
        (lambda: linear().add_noise(torch.zeros(3, 2), torch.zeros(3, 1), torch.ones(3)), "one shape"),
    ],
)
def test_bad_input_gets_one_clear_line(call, says):
    with pytest.raises(ValueError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)
