"""Confusion against scikit-learn, by hand, and where a rate is 0 / 0."""

import math

import numpy as np
import pytest
import torch
from sklearn import metrics

from inference.scoring import brier_score, confusion, log_score


def test_two_classes_by_hand():
    truth, said = [1] * 6 + [0] * 4, [1, 1, 1, 1, 0, 0, 1, 0, 0, 0]
    found = confusion(truth, said)
    assert found.table.tolist() == [[3, 1], [2, 4]]
    assert [float(getattr(found, name)[1]) for name in ("true_positive", "false_positive")] == [4, 1]
    assert [float(getattr(found, name)[1]) for name in ("false_negative", "true_negative")] == [2, 3]
    assert found.accuracy == 0.7
    assert float(found.precision[1]) == pytest.approx(4 / 5)
    assert float(found.recall[1]) == pytest.approx(4 / 6)
    assert float(found.specificity[1]) == pytest.approx(3 / 4)
    assert float(found.f1[1]) == pytest.approx(2 * 4 / (2 * 4 + 1 + 2))


@pytest.mark.parametrize("weighted", [False, True])
def test_rates_are_scikit_learns(weighted):
    random = np.random.default_rng(0)
    truth, said = random.integers(0, 5, (2, 400))
    weight = random.random(400) if weighted else None
    found = confusion(truth, said, weight=weight)
    theirs = metrics.precision_recall_fscore_support(truth, said, sample_weight=weight)
    for ours, reference in zip((found.precision, found.recall, found.f1), theirs[:3], strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-12)
    assert found.accuracy == pytest.approx(metrics.accuracy_score(truth, said, sample_weight=weight), rel=1e-12)
    assert found.macro("recall") == pytest.approx(
        metrics.recall_score(truth, said, average="macro", sample_weight=weight)
    )


def test_what_is_undefined_is_what_was_agreed():
    found = confusion([0, 0, 1], [0, 0, 0], classes=3)
    assert math.isnan(found.precision[1])
    assert float(found.recall[1]) == 0
    assert math.isnan(found.recall[2])
    assert math.isnan(found.f1[2])
    assert found.macro("recall") == 0.5  # of the two classes that occur
    for value in (0.0, 1.0):
        agreed = confusion([0, 0, 1], [0, 0, 0], classes=3, undefined=value)
        assert [float(agreed.precision[1]), float(agreed.recall[2]), float(agreed.f1[2])] == [value] * 3
        assert float(agreed.recall[1]) == 0  # 0 / 1 is a number
    assert math.isnan(confusion([], [], classes=2).accuracy)


@pytest.mark.parametrize(
    ("label", "said", "message"),
    [
        ([0, 1], [0], "label and predicted must be"),
        ([0, -1], [0, 1], "label is -1 in row 1; classes are 0 to 1"),
        ([0, 1], [0, 1.5], "predicted is 1.5 in row 1"),
        ([0, 1], [0, 3], "predicted is 3 in row 1; classes are 0 to 1"),
    ],
)
def test_wrong_rows_are_named(label, said, message):
    with pytest.raises(ValueError, match=message):
        confusion(label, said, classes=2 if "classes" in message else None)


def test_proper_scores_are_scikit_learns_and_best_at_the_truth():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(20000, 3, generator=generator, dtype=torch.float64).square()
    truth = truth / truth.sum(1, keepdim=True)
    label = torch.multinomial(truth, 1, generator=generator)[:, 0]
    assert log_score(truth, label) == pytest.approx(-metrics.log_loss(label, truth), rel=1e-12)
    hot = np.eye(3)[label]
    assert brier_score(truth, label) == pytest.approx(((truth.numpy() - hot) ** 2).sum(1).mean(), rel=1e-12)
    assert brier_score(torch.tensor([0.2, 0.9]), torch.tensor([0, 1])) == pytest.approx(2 * (0.04 + 0.01) / 2)
    for wrong in (truth**2, truth**0.5):
        wrong = wrong / wrong.sum(1, keepdim=True)
        assert log_score(wrong, label) < log_score(truth, label)
        assert brier_score(wrong, label) > brier_score(truth, label)
