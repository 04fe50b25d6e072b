"""Warm-up finds step size and metric from any start."""

import math

import pytest
import torch

from inference.mcmc.chains import Chains, Tuned
from inference.mcmc.metric import Metric
from inference.mcmc.warmup import StepSize, Window, harmonic, warm_up


def test_the_harmonic_mean_hears_the_few_that_are_rejected():
    rates = torch.tensor([1.0] * 9 + [0.1])
    assert harmonic(rates) == pytest.approx(10 / 19)
    assert harmonic(torch.tensor([0.8, 0.8])) == pytest.approx(0.8)
    assert harmonic(torch.tensor([1.0, math.nan])) == pytest.approx(2 / 1001, rel=1e-6)
    assert harmonic(torch.tensor([0.0, 0.0])) == pytest.approx(1e-3)


@pytest.mark.parametrize("first", [0.03, 0.3, 50.0])
@pytest.mark.parametrize("target", [0.6, 0.8, 0.95])
def test_the_step_settles_where_the_acceptance_is_the_target(first, target):
    step, size = StepSize(math.log(first), target), first
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        noise = 0.02 * float(torch.randn((), generator=generator))
        size = step.update(min(1.0, max(0.0, math.exp(-(size**2)) + noise)))
    assert math.exp(-(math.exp(step.mean) ** 2)) == pytest.approx(target, abs=0.02)


def still(x):
    return Chains(x, torch.zeros(len(x)), -x)


def test_a_window_keeps_the_last_turns_and_a_bounded_number():
    window = Window(most=100)
    for turn in range(40):
        window.add(still(torch.full((10, 2), float(turn))))
    draws, grads = window.pooled(20)
    assert len(draws) == len(grads) == 100
    assert draws.min() == 20
    assert draws.unique().numel() == 10
    assert torch.equal(grads, -draws)
    assert len(window.draws) == 20


class Independent:
    """A kernel that draws from its target at once, with an acceptance that falls with the step."""

    def __init__(self, scales):
        self.scales, self.generator, self.turns, self.steps = scales, torch.Generator().manual_seed(3), [], []

    def __call__(self, chains, tuned, turn):
        self.turns.append(turn)
        self.steps.append(tuned.step_size)
        x = self.scales * torch.randn(chains.x.shape, generator=self.generator, dtype=torch.float64)
        rate = torch.full((len(x),), math.exp(-(tuned.step_size**2)))
        return Chains(x, -0.5 * (x / self.scales).square().sum(1), -x / self.scales**2), {"acceptance_rate": rate}


def warmed(kernel, turns, chains=64):
    x = torch.zeros(chains, 3, dtype=torch.float64)
    seen = []
    chains, tuned = warm_up(
        kernel,
        Chains(x, x.sum(1), x),
        Tuned(0.1, 1.5, Metric(torch.ones(3, dtype=torch.float64))),
        turns,
        0.8,
        lambda *now: seen.append(now),
    )
    return chains, tuned, seen


@pytest.mark.parametrize("turns", [100, 250, 600])
def test_warm_up_finds_scales_and_step(turns):
    scales = torch.tensor([0.01, 1.0, 100.0], dtype=torch.float64)
    kernel = Independent(scales)
    chains, tuned, seen = warmed(kernel, turns)
    torch.testing.assert_close(tuned.metric.factor.diagonal(), scales, rtol=0.1, atol=0.0)
    assert math.exp(-(tuned.step_size**2)) == pytest.approx(0.8, abs=0.03)
    assert kernel.turns == list(range(turns))
    assert [turn for turn, *_ in seen] == kernel.turns
    metrics = [now[3].metric.factor for now in seen]
    changes = [i for i in range(1, turns) if metrics[i] is not metrics[i - 1]]
    assert 3 <= len(changes) <= 12
    assert changes[-1] <= turns - turns // 7
    gaps = torch.tensor(changes).diff()
    assert (gaps[1:] >= gaps[:-1]).all()
    assert chains.x is seen[-1][1].x


@pytest.mark.parametrize("turns", [0, 1, 3, 10])
def test_a_short_warm_up_or_none_leaves_a_usable_step(turns):
    _, tuned, seen = warmed(Independent(torch.ones(3, dtype=torch.float64)), turns)
    assert len(seen) == turns
    assert 0 < tuned.step_size < math.inf
    assert tuned.metric.factor.isfinite().all()


def test_a_kernel_s_own_adaptation_and_acceptance_are_asked():
    class Own(Independent):
        def adapt(self, tuned):
            return Tuned(tuned.step_size, tuned.length + 1.0, tuned.metric)

        def acceptance(self, rates, progress):
            assert 0 <= progress < 1
            return 0.8

    _, tuned, _ = warmed(Own(torch.ones(3, dtype=torch.float64)), 30)
    assert tuned.length == 31.5
    assert tuned.step_size == pytest.approx(0.1)
