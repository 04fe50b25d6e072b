import pytest
import torch

from ppmodels.nn.hippo import MEASURES, transition
from ppmodels.nn.nplr import conjugate_half, nplr


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("states", [2, 8, 64])
def test_diagonal_plus_low_rank_is_the_same_matrix(measure, states):
    form = nplr(measure, states)
    a, b = transition(measure, states)
    back, inputs = form.dense()
    assert (back - a).abs().max() < 1e-12 * a.abs().max()
    assert (inputs - b).abs().max() < 1e-12 * b.abs().max()
    identity = torch.eye(states, dtype=torch.complex128)
    assert (form.vectors @ form.vectors.mH - identity).abs().max() < 1e-12


def test_an_odd_number_of_states_has_the_form_too():
    a, _ = transition("legs", 7)
    assert (nplr("legs", 7).dense()[0] - a).abs().max() < 1e-13
    with pytest.raises(ValueError, match="even"):
        conjugate_half(nplr("legs", 7))


@pytest.mark.parametrize(("states", "largest"), [(8, 19.8574), (16, 80.9661), (32, 325.4263), (64, 1303.2738)])
def test_spectrum_of_legs(states, largest):
    values = nplr("legs", states).eigenvalues
    torch.testing.assert_close(values.real, torch.full((states,), -0.5).double())
    assert values.imag.abs().max().item() == pytest.approx(largest, abs=5e-5)


@pytest.mark.parametrize("measure", MEASURES)
def test_half_and_its_conjugates_are_the_whole(measure):
    states = 8
    half, (a, b) = conjugate_half(nplr(measure, states)), transition(measure, states)
    vectors, p = half.vectors, half.low_rank

    def pairs(left, right):  # the sum over both of each pair
        return 2 * (left @ right).real

    diagonal = pairs(vectors * half.eigenvalues, vectors.mH)
    rank = torch.stack([torch.outer(x, x) for x in pairs(vectors, p.mT).mT]).sum(0)
    torch.testing.assert_close(diagonal - rank, a, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(pairs(vectors, half.input), b, atol=1e-12, rtol=1e-12)
