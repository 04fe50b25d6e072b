"""Dense memories descend their energy, hold N^(n-1) patterns, and classify by clamping."""

import math

import pytest
import torch
from sklearn.datasets import load_digits

from ppmodels.memory.capacity import dense_error, error_free_patterns
from ppmodels.memory.dense import DenseMemory, Interaction
from ppmodels.memory.learning import hebb
from tests.draws import signs

KINDS = [Interaction("polynomial", 2), Interaction("polynomial", 3), Interaction("polynomial", 4)]
KINDS += [Interaction("rectified", 3), Interaction("exponential")]


def test_degree_two_is_hebbs_network():
    x = signs(9, 60)  # K (N - 1) is odd: no field is 0
    dense, classical = DenseMemory(x), hebb(x)
    starts = signs(200, 60, seed=1)
    assert torch.equal(dense.update_once(starts), classical.recall(starts, "synchronous", sweeps=1).state)
    assert torch.equal(dense.recall(starts).state, classical.recall(starts).state)
    gap = dense.energy(starts) / 120 - classical.energy(starts)
    assert torch.allclose(gap, gap[:1], atol=1e-10)


@pytest.mark.parametrize("interaction", KINDS)
def test_energy_never_rises(interaction):
    memory = DenseMemory(signs(30, 25), interaction)
    state = signs(40, 25, seed=2)
    before = memory.energy(state)
    for _ in range(3):
        for unit in range(25):
            drive = memory.drive(state, unit)
            flipped = state.clone()
            flipped[:, unit] = -state[:, unit]
            wants = drive * state[:, unit] < 0
            state = torch.where(wants[:, None], flipped, state)
            after = memory.energy(state)
            assert (after <= before + 1e-12).all()
            before = after
    end = memory.recall(signs(40, 25, seed=2))
    assert (end.period == 1).all()
    assert torch.equal(memory.update_once(end.state), end.state)


@pytest.mark.parametrize(
    ("patterns", "theory", "simulated"), [(362, 0.0012, 0.0017), (1000, 0.034, 0.036), (3000, 0.146, 0.136)]
)
def test_bit_error_of_degree_three(patterns, theory, simulated):
    assert dense_error(100, patterns, 3) == pytest.approx(theory, rel=0.05)
    wrong = []
    for seed in range(2):
        x = signs(patterns, 100, seed=seed)
        wrong.append((DenseMemory(x, KINDS[1]).update_once(x[:150]) != x[:150]).double().mean())
    error = math.sqrt(simulated / 30000)
    assert torch.stack(wrong).mean().item() == pytest.approx(simulated, abs=4 * error + 0.1 * simulated)


def test_error_free_scale():
    assert error_free_patterns(100, 3) == pytest.approx(362, abs=0.5)
    assert error_free_patterns(60, 3) == pytest.approx(146, abs=1)
    assert error_free_patterns(40, 4) == pytest.approx(578, abs=1)


def test_a_steeper_energy_holds_what_a_flat_one_forgets():
    x = signs(120, 60)
    cue = x.clone()
    cue[:, :6] *= -1
    held = [(DenseMemory(x, k).recall(cue).state == x).all(-1).double().mean().item() for k in KINDS]
    assert held[0] == 0
    assert held[1] > 0.9
    assert held[2] == 1
    assert held[4] == 1  # exp


def test_xor_by_clamping():
    table = torch.tensor([[a, b, -a * b] for a in (-1.0, 1.0) for b in (-1.0, 1.0)])
    flat, steep = DenseMemory(table), DenseMemory(table, Interaction("polynomial", 3))
    assert torch.equal(flat.classify(table[:, :2]), torch.zeros(4, 1))
    assert torch.equal(steep.classify(table[:, :2]).sign(), table[:, 2:])
    assert torch.equal(steep.feed_forward(table[:, :2]).sign(), table[:, 2:])


def test_exponential_energies_do_not_overflow():
    x = signs(20, 2000)
    memory = DenseMemory(x, KINDS[-1])
    assert memory.energy(x).isfinite().all()
    assert torch.equal(memory.recall(torch.where(torch.arange(2000) < 800, -x, x)[:2], sweeps=2).state, x[:2])


def test_digits_by_clamping_are_those_of_the_network_with_one_hidden_layer():
    images, labels = load_digits(return_X_y=True)
    pixels = torch.nn.functional.normalize(torch.as_tensor(images) / 8 - 1) * 8  # one overlap for all with themselves
    labels = torch.as_tensor(labels)
    classes = 0.2 * torch.nn.functional.one_hot(labels, 10) - 0.1  # small against the pixels: first order holds
    memory = DenseMemory(torch.cat([pixels, classes], -1)[:1400], Interaction("rectified", 30))
    clamped = memory.classify(pixels[1400:]).argmax(-1)
    network = memory.feed_forward(pixels[1400:]).argmax(-1)
    accuracy = [(guess == labels[1400:]).double().mean().item() for guess in (clamped, network)]
    assert min(accuracy) > 0.95
    assert accuracy[0] == pytest.approx(accuracy[1], abs=1 / 397)  # one image
    assert (clamped == network).double().mean() > 0.997


def test_bad_input_is_refused_in_one_line():
    for call, words in (
        (lambda: Interaction("cubic"), "kind must be"),
        (lambda: Interaction("polynomial", 0), "degree must be at least 1"),
        (lambda: DenseMemory(torch.zeros(0, 3)), r"\(K, N\)"),
        (lambda: DenseMemory(torch.ones(2, 3)).classify(torch.ones(1, 3)), "leave none of 3"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
