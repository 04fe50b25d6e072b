import pytest
import torch

from ppmodels.nn.hippo import MEASURES, low_rank, transition


def test_legs_is_the_published_matrix():
    a, b = transition("legs", 4)
    rows = torch.tensor(
        [
            [-1, 0, 0, 0],
            [-1.73205081, -2, 0, 0],
            [-2.23606798, -3.87298335, -3, 0],
            [-2.64575131, -4.58257569, -5.91607978, -4],
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(a, rows, atol=1e-8, rtol=0)
    torch.testing.assert_close(b, torch.tensor([1.0, 3.0, 5.0, 7.0]).double().sqrt())


@pytest.mark.parametrize("states", [1, 5, 8, 64])
def test_eigenvalues_of_legs_are_the_negative_integers(states):
    a, _ = transition("legs", states)
    values = torch.linalg.eigvals(a).real.sort(descending=True).values if states < 20 else a.diagonal()
    torch.testing.assert_close(values, -torch.arange(1.0, states + 1).double(), atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize(("measure", "shift"), [("legs", -0.5), ("legt", 0.0), ("fout", 0.0)])
@pytest.mark.parametrize("states", [2, 8, 64])
def test_low_rank_correction_leaves_a_normal_matrix(measure, shift, states):
    a, _ = transition(measure, states)
    p = low_rank(measure, states)
    normal = a + p.mT @ p
    skew = normal - shift * torch.eye(states)
    assert (skew + skew.mT).abs().max() < 1e-13 * a.abs().max()
    assert (normal @ normal.mT - normal.mT @ normal).abs().max() < 1e-12 * a.abs().max() ** 2
    torch.testing.assert_close(torch.linalg.eigvals(normal).real, torch.full((states,), shift).double())


@pytest.mark.parametrize("measure", MEASURES)
def test_every_measure_is_stable(measure):
    a, _ = transition(measure, 16)
    assert torch.linalg.eigvals(a).real.max() < 1e-9  # fout's idle second state stays at zero


@pytest.mark.parametrize(
    ("measure", "states", "word"), [("lagt", 4, "no measure"), ("fout", 3, "even"), ("legs", 0, "at least 1")]
)
def test_one_clear_line_for_what_cannot_be(measure, states, word):
    with pytest.raises(ValueError, match=word):
        transition(measure, states)
