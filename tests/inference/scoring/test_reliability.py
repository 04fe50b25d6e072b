"""Calibration: the numbers of a diagram by hand, and repairs that find what was done to the probabilities."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from inference.plots.reliability import reliability as picture
from inference.scoring import platt, reliability, temperature


def simulated(n=20000, classes=4, seed=0):
    """Logits, and labels that have exactly the probabilities these say."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return logits, torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]


def test_one_confidence_and_one_accuracy():
    label = torch.tensor([1] * 7 + [0] * 3)
    for bins in (1, 10, 15):
        found = reliability(torch.full((10,), 0.9, dtype=torch.float64), label, bins=bins)
        assert found.ece == pytest.approx(0.2, abs=1e-12)
        assert found.mce == pytest.approx(0.2, abs=1e-12)
        assert float(found.count.sum()) == 10
    table = torch.tensor([[0.1, 0.9]], dtype=torch.float64).expand(10, 2)
    assert reliability(table, label).ece == pytest.approx(0.2, abs=1e-12)


@pytest.mark.parametrize("equal_mass", [False, True])
def test_calibrated_predictions_have_no_error_but_chance(equal_mass):
    errors = []
    for n in (1000, 10000, 100000):
        logits, label = simulated(n)
        found = reliability(logits.softmax(-1), label, equal_mass=equal_mass)
        assert float(found.count.sum()) == n
        errors.append(found.ece)
        seen = found.count > 20
        z = ((found.frequency - found.confidence) / found.standard_error)[seen]
        assert z.abs().max() < 4
    assert errors[-1] < 0.005
    assert errors[-1] < errors[0]
    if equal_mass:
        assert found.count.max() - found.count.min() <= 2


def test_of_one_class_it_is_scikit_learns_curve():
    logits, label = simulated(3000, 2)
    probability = logits.softmax(-1)[:, 1]
    found = reliability(probability, label, bins=10)
    frequency, confidence = calibration_curve(label, probability, n_bins=10)
    np.testing.assert_allclose(found.frequency[found.count > 0], frequency, rtol=1e-12)
    np.testing.assert_allclose(found.confidence[found.count > 0], confidence, rtol=1e-12)


def test_edges_belong_to_the_bin_below():
    found = reliability(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([0, 1, 1]), bins=2)
    assert found.count.tolist() == [2, 1]
    same = reliability(torch.full((8,), 0.3), torch.zeros(8), equal_mass=True, bins=4)
    assert sorted(same.count.tolist())[-1] == 8


@pytest.mark.parametrize("factor", [0.2, 0.5, 1.0, 3.0, 20.0])
def test_temperature_finds_the_factor_and_leaves_the_order(factor):
    logits, label = simulated(60000)
    found, honest = temperature(factor * logits, label), temperature(logits, label)
    assert found == pytest.approx(factor * honest, rel=1e-8)
    assert found == pytest.approx(factor, rel=0.01)
    before, after = factor * logits, factor * logits / found
    assert torch.equal(before.argmax(-1), after.argmax(-1))
    if factor > 1:
        assert reliability(after.softmax(-1), label).ece < 0.1 * reliability(before.softmax(-1), label).ece


def test_temperature_of_two_classes_takes_one_logit():
    logits, label = simulated(5000, 2)
    assert temperature(logits[:, 1] - logits[:, 0], label) == pytest.approx(temperature(logits, label), rel=1e-10)


def test_platt_is_logistic_regression_in_one_dimension():
    generator = torch.Generator().manual_seed(1)
    score = 100 + 5 * torch.randn(4000, generator=generator, dtype=torch.float64)
    label = (torch.rand(4000, generator=generator, dtype=torch.float64) < (0.4 * (score - 102)).sigmoid()).long()
    ours = platt(score, label, smooth=False)
    theirs = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit((score - 100)[:, None], label)
    assert ours.slope == pytest.approx(theirs.coef_.item(), rel=1e-5)
    assert ours.offset + 100 * ours.slope == pytest.approx(theirs.intercept_.item(), rel=1e-5)
    assert ours.slope == pytest.approx(0.4, rel=0.1)
    residual = label - ours(score)
    assert abs(float(residual.sum())) < 1e-6
    assert abs(float(residual @ (score - 100))) < 1e-6
    assert platt(score, label).slope == pytest.approx(ours.slope, rel=0.01)  # smoothing is slight


def test_platt_of_separated_scores_needs_its_smoothing():
    score, label = torch.arange(10.0), (torch.arange(10) > 4).long()
    found = platt(score, label)
    high = (5 + 1) / (5 + 2)
    assert float(found(score).double().sum()) == pytest.approx(5 * high + 5 * (1 - high))
    with pytest.raises(ValueError, match="the slope has no end"):
        platt(score, label, smooth=False)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: reliability(torch.tensor([0.2, 1.3]), torch.tensor([0, 1])), "row 1 is no distribution"),
        (lambda: reliability(torch.tensor([0.2, math.nan]), torch.tensor([0, 1])), "row 1 is no distribution"),
        (lambda: reliability(torch.tensor([0.2, 0.3]), torch.tensor([0, 2])), "label is 2 in row 1"),
        (lambda: reliability(torch.tensor([]), torch.tensor([])), "no predictions"),
        (lambda: reliability(torch.tensor([0.5]), torch.tensor([1]), bins=0), "bins must be at least 1"),
        (lambda: temperature(torch.tensor([-1.0, 2.0]), torch.tensor([0, 1])), "every row is right"),
        (lambda: temperature(torch.tensor([1.0, -2.0]), torch.tensor([0, 1])), "no better than chance"),
        (lambda: platt(torch.tensor([1.0, -2.0]), torch.tensor([1, 1])), "both classes"),
        (lambda: platt(torch.tensor([1.0, 1.0]), torch.tensor([0, 1])), "all scores are equal"),
    ],
)
def test_what_cannot_be_judged_or_repaired_says_why(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_the_picture_shows_every_bin_that_holds_a_row():
    logits, label = simulated(500, 3)
    found = {
        "as it was": reliability((2 * logits).softmax(-1), label),
        "repaired": reliability(logits.softmax(-1), label),
    }
    figure = picture(found)
    assert [axis.get_title(loc="left").splitlines()[0] for axis in figure.axes] == list(found)
    for axis, one in zip(figure.axes, found.values(), strict=True):
        points = axis.containers[1].lines[0]
        np.testing.assert_allclose(points.get_ydata(), one.frequency[one.count > 0])
    assert not plt.get_fignums()
