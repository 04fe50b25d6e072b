import numpy as np
import pytest
import torch

from ppmodels.nn.hippo import transition
from ppmodels.nn.history import basis, track

NODES, WEIGHTS = (torch.as_tensor(x) for x in np.polynomial.legendre.leggauss(64))
UNIT, MASS = (NODES + 1) / 2, WEIGHTS / 2


def coefficients(past, states, measure="legs"):
    """Inner products of a function on [0, 1] with the basis, by quadrature."""
    return (MASS * past(UNIT)) @ basis(UNIT, states, measure)


@pytest.mark.parametrize("measure", ["legs", "legt", "fout"])
def test_basis_is_orthonormal(measure):
    phi = basis(UNIT, 8, measure)
    gram = phi.mT @ (MASS[:, None] * phi)
    expected = torch.eye(8).double()
    expected[1, 1] = 0.0 if measure == "fout" else 1.0
    torch.testing.assert_close(gram, expected, atol=1e-12, rtol=0)


def test_legs_tracks_x_exactly():
    step, states = 0.01, 6
    times = step * torch.arange(500).double()
    c = track(times, states)
    expected = torch.zeros(500, states).double()
    expected[:, 0], expected[:, 1] = times / 2, times / (2 * 3**0.5)
    torch.testing.assert_close(c, expected, atol=1e-13, rtol=0)
    a, b = transition("legs", states)
    slope = torch.tensor([1 / 2, 1 / (2 * 3**0.5), 0, 0, 0, 0]).double()
    torch.testing.assert_close((expected[1:] @ a.mT + times[1:, None] * b) / times[1:, None], slope.expand(499, -1))


@pytest.mark.parametrize("degree", range(8))
def test_coefficients_of_a_polynomial_satisfy_the_equation(degree):
    a, b = transition("legs", 8)
    t = 1.7
    c = coefficients(lambda x: (t * x) ** degree, 8)
    slope = coefficients(lambda x: degree * (t * x) ** max(degree - 1, 0) * x, 8)  # d/dt of (t x)^degree
    torch.testing.assert_close((a @ c + b * t**degree) / t, slope, atol=1e-10, rtol=0)


def test_tracked_polynomials_reconstruct():
    """Of second order; two step sizes extrapolated reach 1e-8 for every degree below N."""
    states, points = 8, torch.linspace(0, 1, 23, dtype=torch.float64)
    powers = torch.arange(states)

    def past(count):
        times = torch.linspace(0, 1, count + 1, dtype=torch.float64)
        return basis(points, states) @ track(times[:, None] ** powers, states)[-1].mT  # (23, 8)

    truth = points[:, None] ** powers
    coarse, middle, fine = past(500), past(1000), past(2000)
    errors = [(x - truth).abs().max().item() for x in (coarse, middle, fine)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.1)
    sharper, sharpest = (4 * middle - coarse) / 3, (4 * fine - middle) / 3
    assert (sharpest - truth).abs().max() < 1e-8
    assert (sharpest - truth).abs().max() < (sharper - truth).abs().max()


@pytest.mark.parametrize(
    ("measure", "past", "slope"),
    [
        ("legt", lambda x: (x + 1) ** 5, lambda x: 5 * (x + 1) ** 4),
        (
            "fout",
            lambda x: torch.sin(2 * torch.pi * x + 1),
            lambda x: 2 * torch.pi * torch.cos(2 * torch.pi * x + 1),
        ),
    ],
)
def test_windows_are_exact_for_what_their_basis_holds(measure, past, slope):
    """In a sliding window d/dt of the past is its own slope, and the newest value is at x = 1."""
    a, b = transition(measure, 8)
    now = past(torch.ones(1).double())
    moved = a @ coefficients(past, 8, measure) + b * now
    torch.testing.assert_close(moved, coefficients(slope, 8, measure), atol=1e-10, rtol=0)


@pytest.mark.parametrize("measure", ["legt", "fout"])
def test_window_forgets_and_reconstructs(measure):
    window, points = 400, torch.linspace(0.05, 0.95, 31, dtype=torch.float64)
    times = torch.arange(4 * window + 1).double() / window
    signal = torch.sin(2 * torch.pi * times) + 0.5 * torch.cos(4 * torch.pi * times)
    c = track(signal, 16, measure, window)[-1]
    truth = torch.sin(2 * torch.pi * points) + 0.5 * torch.cos(4 * torch.pi * points)
    assert (basis(points, 16, measure) @ c - truth).abs().max() < 5e-3


def test_one_sample_and_none():
    torch.testing.assert_close(track(torch.tensor([2.0]), 3), torch.tensor([[2.0, 0.0, 0.0]]))
    with pytest.raises(ValueError, match="empty"):
        track(torch.zeros(0), 3)
