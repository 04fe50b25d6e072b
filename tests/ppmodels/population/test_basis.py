import math

import pytest
import torch

from ppmodels.population.basis import BSpline, Cyclic, RaisedCosine, RaisedCosineLog, Raw, basis, orthonormal, sampled
from ppmodels.population.lagging import direct, lagged

EVERY = pytest.mark.parametrize("family", ["log-cosine", "cosine", "b-spline", "cyclic", "raw"])


@EVERY
def test_a_window_in_seconds_is_the_same_in_any_bins(family):
    one = basis(family, 6, 0.12)
    if family == "raw":
        assert torch.equal(sampled(one, 0.02), torch.eye(6, dtype=torch.float64))
        return
    fine, coarse = sampled(one, 0.001), sampled(one, 0.004)
    assert fine.shape == (120, 6)
    assert coarse.shape == (30, 6)
    torch.testing.assert_close(fine[::4], coarse)


@EVERY
def test_orthonormal_columns_span_the_same(family):
    matrix = sampled(basis(family, 5, 0.1), 0.02 if family == "raw" else 0.002)
    q = orthonormal(matrix)
    torch.testing.assert_close(q.mT @ q, torch.eye(5, dtype=torch.float64))
    torch.testing.assert_close(q @ (q.mT @ matrix), matrix)


def test_splines_add_up_to_one_and_cosines_by_their_formula():
    time = torch.linspace(0, 0.2, 501, dtype=torch.float64)
    for spline in (BSpline(7, 0.2), BSpline(4, 0.2, order=2), Cyclic(6, 0.2), Cyclic(3, 0.2, order=3)):
        value = spline.evaluate(time)
        torch.testing.assert_close(value.sum(-1), torch.ones(501, dtype=torch.float64))
        assert float(value.min()) > -1e-12
    k = torch.arange(5, dtype=torch.float64)
    distance = (time[:, None] - k * 0.2 / 6) / (0.2 / 6)
    formula = torch.where(distance.abs() < 2, 0.5 * (1 + torch.cos(math.pi * distance / 2)), 0.0)
    torch.testing.assert_close(RaisedCosine(5, 0.2).evaluate(time), formula)


def test_the_logarithmic_axis_is_fine_first_and_ends_with_the_window():
    value = RaisedCosineLog(6, 0.5).evaluate(torch.linspace(0, 0.5, 5001, dtype=torch.float64))
    peaks = value.argmax(0).double()
    gaps = peaks.diff()
    assert peaks[0] == 0
    assert (gaps.diff() > 0).all()
    assert float(value[-1].max()) < 1e-12


def test_a_circle_has_no_seam():
    around = Cyclic(5, 2 * math.pi)
    turn = torch.tensor([0.3, 1.9], dtype=torch.float64)
    torch.testing.assert_close(around.evaluate(turn), around.evaluate(turn + 2 * math.pi))
    torch.testing.assert_close(around.evaluate(turn), around.evaluate(turn + 2 * math.pi / 5).roll(-1, -1))


def test_what_cannot_be_is_one_line():
    with pytest.raises(ValueError, match=r"0.003 s has 3 bins of 0.001 s, too few for 5"):
        sampled(RaisedCosine(5, 0.003), 0.001)
    with pytest.raises(ValueError, match="linearly dependent"):
        orthonormal(torch.ones(4, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="positive window"):
        Raw(3, 0.0)
    with pytest.raises(ValueError, match="there are: log-cosine"):
        basis("wavelet", 3, 0.1)


@pytest.mark.parametrize("width", [1, 2, 7, 64])
def test_filtering_is_the_definition(width):
    generator = torch.Generator().manual_seed(width)
    series = torch.randn(3, 200 + width - 1, 4, generator=generator, dtype=torch.float64)
    kernel = torch.randn(width, 5, generator=generator, dtype=torch.float64)
    ours = lagged(series, kernel)
    assert ours.shape == (3, 200, 4, 5)
    torch.testing.assert_close(ours, direct(series, kernel), rtol=1e-10, atol=1e-10)
    by_hand = sum(kernel[w, 2] * series[1, 50 + width - 1 - w, 3] for w in range(width))
    torch.testing.assert_close(ours[1, 50, 3, 2], by_hand)
