"""The binary network descends its energy, and stores as much as theory says."""

import math
import time

import pytest
import torch

from ppmodels.memory import _sweep
from ppmodels.memory.capacity import (
    critical_load,
    error_free_patterns,
    mean_field_overlap,
    one_step_error,
)
from ppmodels.memory.hopfield import Hopfield
from ppmodels.memory.learning import hebb, perceptron, pseudo_inverse, pseudo_likelihood, storkey, unlearn
from tests.draws import signs


def symmetric(units, seed=0):
    w = torch.randn(units, units, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (w + w.mT).fill_diagonal_(0)


def network(units, seed=0):
    bias = torch.randn(units, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    return Hopfield(symmetric(units, seed), bias)


def one_by_one(net, state):
    """The textbook loop: every state that is passed through."""
    state, path, moved = state.clone(), [state.clone()], True
    low = -1.0 if net.units == "signs" else 0.0
    while moved:
        moved = False
        for i in range(len(state)):
            h = net.weights[i] @ state + net.bias[i]
            new = torch.tensor(1.0 if h > 0 else low)
            if h != 0 and new != state[i]:
                state[i], moved = new, True
                path.append(state.clone())
    return torch.stack(path)


def test_a_flip_changes_the_energy_by_minus_the_change_times_the_field():
    net, state = network(30), signs(30, seed=3)
    for i in range(30):
        flipped = state.clone()
        flipped[i] = -flipped[i]
        change = net.energy(flipped) - net.energy(state)
        assert torch.isclose(change, -(flipped[i] - state[i]) * net.field(state)[i], atol=1e-12)


def test_energy_never_rises_and_a_fixed_point_is_reached_from_1000_starts():
    net = network(150)
    starts = signs(1000, 150, seed=1)
    ends = net.recall(starts)
    assert (ends.period == 1).all()
    assert net.is_fixed(ends.state).all()
    assert (net.energy(ends.state) <= net.energy(starts)).all()
    for start in starts[:20]:
        path = one_by_one(net, start)
        assert (net.energy(path).diff() < 0).all()  # on every single flip
    shuffled = net.recall(starts[:50], seed=4)
    assert (shuffled.period == 1).all()
    assert net.is_fixed(shuffled.state).all()


def test_blocked_sweeps_are_the_textbook_loop(monkeypatch):
    monkeypatch.setattr(_sweep, "BLOCK", 100)
    for seed in range(2):
        net = network(150, seed)  # two blocks, the last one short
        for units in (net, net.as_bits()):
            starts = signs(8, 150, seed=seed)
            starts = starts if units.units == "signs" else (starts + 1) / 2
            expected = torch.stack([one_by_one(units, s)[-1] for s in starts])
            assert torch.equal(units.recall(starts).state, expected)


def test_turns_that_hang_on_one_another_like_a_chain_are_taken_one_after_the_other():
    """Each unit follows the one before it: the first flip runs through the whole block within a sweep."""
    chain = Hopfield(torch.eye(60).roll(1, 0).tril(-1), torch.nn.functional.one_hot(torch.tensor(0), 60).float())
    state = -torch.ones(3, 60)
    assert _sweep.sweep(chain.weights, chain.bias, state, (-1.0, 1.0)).all()
    assert torch.equal(state, torch.ones(3, 60))


def test_bits_and_signs_move_alike():
    net = network(40)
    bits = net.as_bits()
    for seed in range(10):
        start = signs(40, seed=seed)
        there, here = one_by_one(net, start), one_by_one(bits, (start + 1) / 2)
        assert torch.equal((there + 1) / 2, here)
        gap = net.energy(there) - bits.energy(here)
        assert torch.allclose(gap, gap[:1], atol=1e-10)
        both = net.recall(start, "synchronous"), bits.recall((start + 1) / 2, "synchronous")
        assert torch.equal((both[0].state + 1) / 2, both[1].state)
    back = bits.as_signs()
    assert torch.allclose(back.weights, net.weights)
    assert torch.allclose(back.bias, net.bias)
    x = (signs(3, 20) + 1) / 2
    half = (x - 0.5).mT @ (x - 0.5)
    assert torch.allclose(hebb(x).weights, 16 / 20 * half.fill_diagonal_(0))


def test_all_at_once_ends_in_rest_or_in_a_cycle_of_two():
    net = network(40)
    ends = net.recall(signs(500, 40, seed=2), "synchronous")
    assert set(ends.period.tolist()) == {1, 2}
    one = ends.state[ends.period == 2]
    two = net.recall(one, "synchronous", sweeps=1).state
    assert (two != one).any(-1).all()
    assert torch.equal(net.recall(two, "synchronous", sweeps=1).state, one)
    assert net.is_fixed(ends.state[ends.period == 1]).all()


def test_weights_that_are_not_symmetric_cycle_with_period_4():
    net = Hopfield(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
    state, seen = torch.tensor([1.0, 1.0]), []
    for _ in range(8):
        seen.append(tuple(state.tolist()))
        state = net.recall(state, "synchronous", sweeps=1).state
    assert seen[:4] == [(1, 1), (1, -1), (-1, -1), (-1, 1)]
    assert seen[4:] == seen[:4]
    assert net.recall(torch.tensor([1.0, 1.0]), "synchronous").period == 0
    assert net.recall(torch.tensor([1.0, 1.0]), sweeps=50).period == 0


def test_one_pattern_is_recalled_from_fewer_than_half_wrong_bits():
    x = signs(1, 101)
    net = hebb(x)
    assert net.is_fixed(torch.cat([x, -x])).all()
    generator = torch.Generator().manual_seed(5)
    for wrong in (1, 25, 49):
        flips = torch.stack([torch.randperm(101, generator=generator) < wrong for _ in range(100)])
        assert (net.recall(torch.where(flips, -x, x)).state == x).all()
    beyond = torch.where(torch.randperm(101, generator=generator) < 60, -x, x)
    assert (net.recall(beyond).state == -x).all()


def test_one_step_error_of_hebbs_rule():
    table = {0.105: 0.0010, 0.138: 0.0036, 0.185: 0.010, 0.37: 0.050, 0.61: 0.100}
    for load, expected in table.items():
        assert one_step_error(load) == pytest.approx(expected, rel=0.03)
        x = signs(round(1000 * load), 1000, seed=7, dtype=torch.float32)
        wrong = hebb(x).recall(x, "synchronous", sweeps=1).state != x
        assert wrong.double().mean().item() == pytest.approx(one_step_error(load), rel=0.12)


def test_mean_field_capacity():
    load, overlap = critical_load()
    assert load == pytest.approx(0.137906, abs=1e-6)
    assert overlap == pytest.approx(0.9674, abs=5e-5)
    for alpha, m in {0.05: 0.99999, 0.10: 0.9980, 0.12: 0.9932}.items():
        assert mean_field_overlap(alpha) == pytest.approx(m, abs=5e-5)
    assert mean_field_overlap(0.1379) == pytest.approx(0.9674, abs=2e-3)
    assert mean_field_overlap(0.1380) == 0
    assert error_free_patterns(500) == pytest.approx(500 / (2 * math.log(500)))


def overlaps(units, load, samples, seed=0):
    x = signs(round(units * load), units, seed=seed, dtype=torch.float32)
    ends = hebb(x).recall(x[:samples]).state
    return (ends * x[:samples]).mean(-1).mean().item()


def test_overlap_against_load():
    m = {a: sum(overlaps(500, a, 50, s) for s in range(3)) / 3 for a in (0.05, 0.10, 0.13, 0.20)}
    assert m[0.05] == pytest.approx(1.000, abs=1e-3)
    assert m[0.10] == pytest.approx(0.997, abs=4e-3)
    assert m[0.13] == pytest.approx(0.968, abs=0.03)
    assert m[0.20] == pytest.approx(0.45, abs=0.12)
    free = round(error_free_patterns(500))
    assert overlaps(500, 0.8 * free / 500, free) > 1 - 1e-4


def test_a_partial_cue_brings_back_the_whole_pattern():
    x = signs(9, 400)
    cue = x.clone()
    cue[:, 200:] = signs(9, 200, seed=9)  # half of it is noise
    assert torch.equal(hebb(x).recall(cue).state, x)


def test_mixtures_of_three_are_spurious_minima_above_the_memories():
    x = signs(3, 4000)
    net, mixture = hebb(x), x.sum(0).sign()
    assert torch.allclose((x @ mixture) / 4000, torch.full((3,), 0.5, dtype=x.dtype), atol=0.05)
    assert net.energy(mixture) / 4000 == pytest.approx(-3 / 8, abs=0.03)
    assert net.energy(x[0]) / 4000 == pytest.approx(-1 / 2, abs=0.03)
    assert net.is_fixed(mixture)


def test_the_perceptron_rule_stores_where_hebb_fails():
    x = signs(100, 100)
    learned = perceptron(x)
    assert learned.is_fixed(x).all()
    assert not hebb(x).is_fixed(x).any()
    together = perceptron(signs(50, 100), symmetric=True)
    assert torch.equal(together.weights, together.weights.mT)
    assert together.is_fixed(signs(50, 100)).all()
    more = signs(60, 100, seed=8)  # one after another, keeping those before by rehearsal
    net = perceptron(more[:30])
    assert perceptron(more, net).is_fixed(more).all()
    with pytest.raises(ArithmeticError, match="still not stored"):
        perceptron(signs(90, 30), epochs=20)


def test_pseudo_likelihood_has_the_perceptrons_fixed_points():
    x = signs(40, 100)
    soft, hard = pseudo_likelihood(x), perceptron(x)
    assert soft.is_fixed(x).all()
    assert torch.equal(soft.is_fixed(x), hard.is_fixed(x))
    w = torch.zeros(100, 100, dtype=torch.float64, requires_grad=True)
    torch.nn.functional.logsigmoid(2 * x * (x @ w.mT)).sum().div(40).backward()
    one_step = pseudo_likelihood(x, num_steps=1).weights
    assert torch.allclose(one_step, w.grad.fill_diagonal_(0), atol=1e-12)


def test_the_pseudo_inverse_stores_every_independent_pattern():
    for patterns in (10, 60, 99):
        x = signs(patterns, 100)
        assert torch.allclose(pseudo_inverse(x, diagonal=True).field(x), x, rtol=0, atol=1e-8)
        assert pseudo_inverse(x).is_fixed(x).all()


def test_storkeys_rule_stores_more_than_hebbs():
    x = signs(80, 400)  # a load of 0.2
    assert storkey(x).is_fixed(x).double().mean() > 0.9
    assert hebb(x).is_fixed(x).double().mean() < 0.1
    net = storkey(x)
    assert torch.allclose(net.weights, net.weights.mT, atol=1e-12)
    assert torch.equal(storkey(x[:1]).weights, hebb(x[:1]).weights)


def test_unlearning_brings_back_memories_at_a_load_of_0_12():
    x = signs(24, 200, seed=3)
    before = hebb(x)
    after = unlearn(before, dreams=500, strength=0.01, seed=1, batch=50)
    cue = torch.where(torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.1, -x, x)

    def overlap(net):
        return (net.recall(cue).state * x).mean().item()

    assert before.is_fixed(x).double().mean() < 0.8
    assert after.is_fixed(x).all()
    assert overlap(after) > max(0.999, overlap(before) + 0.01)


@pytest.mark.slow
def test_sweeps_are_as_fast_as_a_matrix_product():
    x = signs(200, 2000, dtype=torch.float32)
    net = hebb(x)

    def seconds(call):
        best = math.inf
        for _ in range(5):
            start = time.perf_counter()
            call()
            best = min(best, time.perf_counter() - start)
        return best

    product = seconds(lambda: [x @ net.weights.mT for _ in range(10)])
    sweeps = seconds(lambda: net.recall(signs(200, 2000, dtype=torch.float32), "synchronous", sweeps=10))
    assert sweeps < 2 * product
    cue = torch.where(torch.rand(200, 2000, generator=torch.Generator().manual_seed(0)) < 0.1, -x, x)
    one_after_another = seconds(lambda: net.recall(cue)) / net.recall(cue).sweeps
    assert one_after_another < 2 * product / 10


def test_bad_input_is_refused_in_one_line():
    for call, words in (
        (lambda: Hopfield(torch.zeros(2, 3)), "square"),
        (lambda: Hopfield(torch.zeros(2, 2), torch.zeros(3)), r"bias must be \(2,\)"),
        (lambda: Hopfield(torch.full((2, 2), math.nan)), "finite"),
        (lambda: Hopfield(torch.zeros(2, 2), units="spins"), "signs or bits"),
        (lambda: Hopfield(torch.zeros(2, 2)).recall(torch.ones(3)), "needs 2 units"),
        (lambda: Hopfield(torch.zeros(2, 2)).recall(torch.ones(2), "both"), "asynchronous or synchronous"),
        (lambda: hebb(torch.zeros(0, 4)), r"\(K, N\)"),
        (lambda: hebb(torch.tensor([[1.0, 2.0]])), "-1 and 1"),
        (lambda: one_step_error(0.0), "load must be positive"),
        (lambda: error_free_patterns(1), "at least 2"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
