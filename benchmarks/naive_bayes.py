"""Naive Bayes beside scikit-learn and pomegranate: prediction of real columns, and counting text in small batches."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.naive_bayes import GaussianNB, MultinomialNB

from benchmarks._clock import fastest
from benchmarks._record import recorded
from inference.sklearn import Estimator
from ppmodels.classification.classifier import Classifier
from ppmodels.classification.naive_bayes import NaiveBayes

ROWS, COLUMNS, CLASSES = 40_000, 500, 50
TEXTS, WORDS, CELLS, TOPICS = 100_000, 50_000, 43, 20


def compare(out: Path | None = None) -> None:
    """Print the tables; one thread, least processor seconds of several runs.

    Args:
        out: a file for the tables as text.
    """
    torch.set_num_threads(1)
    with recorded(out, "torch", "scikit-learn", "pomegranate"):
        gaussian()
        text()


def gaussian() -> None:
    """Fit and predict on real columns."""
    random = np.random.default_rng(0)
    y = random.integers(0, CLASSES, ROWS)
    x = 0.3 * random.normal(size=(CLASSES, COLUMNS))[y] + random.normal(size=(ROWS, COLUMNS))
    peer, model = GaussianNB(var_smoothing=0).fit(x, y), NaiveBayes(classes=CLASSES, columns=("gaussian",) * COLUMNS)
    ours = Classifier(model).learn(x, y)
    rows, theta = torch.tensor(x), ours.parameters(prior=False)
    single = rows.float(), {name: value.float() for name, value in theta.items()}
    theirs = fastest(lambda: peer.predict(x), 2)
    print(f"Gaussian, {ROWS} x {COLUMNS}, {CLASSES} classes: seconds")
    print(f"  predict: scikit-learn {theirs:.2f}")
    for name, (value, at) in {"float64": (rows, theta), "float32": single}.items():
        seconds = fastest(lambda: ours.predict(value, at), 3)  # noqa: B023
        same = float(np.mean(ours.predict(value, at).numpy() == peer.predict(x[: len(value)])))
        print(
            f"  ours in {name}: {seconds:.3f}, {theirs / seconds:.1f} times as fast (target 20); same class {same:.4%}"
        )
    fits = fastest(lambda: GaussianNB().fit(x, y), 2), fastest(lambda: Classifier(model).learn(rows, y), 2)
    print(
        f"  fit: scikit-learn {fits[0]:.3f}, ours {fits[1]:.3f}; pomegranate predicts in {pomegranate(x, y)}",
        flush=True,
    )


def text() -> None:
    """Learn sparse counts in batches."""
    random = np.random.default_rng(0)
    y = random.integers(0, TOPICS, TEXTS)
    column = np.minimum((WORDS * random.random((TEXTS, CELLS)) ** 3).astype(np.int32), WORDS - 1)
    start = np.arange(0, TEXTS * CELLS + 1, CELLS)
    x = sparse.csr_matrix((np.ones(TEXTS * CELLS), column.ravel(), start), shape=(TEXTS, WORDS))
    x.sum_duplicates()
    model = NaiveBayes(classes=TOPICS, columns=("multinomial",) * WORDS)
    size = f"{TEXTS} x {WORDS}, {x.nnz / 1e6:.1f} million cells, {TOPICS} classes"
    print(f"Multinomial, sparse {size}: partial_fit, seconds")
    for size in (100, 1000, 10_000):
        batches = [(x[i : i + size], y[i : i + size]) for i in range(0, TEXTS, size)]
        theirs = fastest(lambda: partial_fit(batches), 1)  # noqa: B023
        ours = fastest(lambda: learn(model, batches), 1)  # noqa: B023
        face = fastest(lambda: by_estimator(batches), 1)  # noqa: B023
        target = " (target 10)" if size == 100 else ""
        said = f"{theirs / ours:.1f} times{target}; as an estimator {face:.3f} s"
        print(f"  batches of {size:>6}: scikit-learn {theirs:.3f} s, ours {ours:.3f} s, {said}")


def partial_fit(batches: Any) -> MultinomialNB:
    """All batches, by the peer."""
    peer = MultinomialNB()
    for x, y in batches:
        peer.partial_fit(x, y, classes=range(TOPICS))
    return peer


def by_estimator(batches: Any) -> Any:
    """All batches, by scikit-learn's face of ours, and the parameters at the end."""
    words = NaiveBayes(columns=("multinomial",), alpha=2.0)
    face = Estimator(words, method="em", options={"prior": True})
    for x, y in batches:
        face.partial_fit(x, y, classes=range(TOPICS))
    return face.word_prob_


def learn(model: NaiveBayes, batches: Any) -> Any:
    """All batches, and the parameters at the end, which the peer renews after each."""
    ours = Classifier(model)
    for x, y in batches:
        ours.learn(x, y)
    return ours.parameters()


def pomegranate(x: np.ndarray, y: np.ndarray) -> str:
    """Seconds of its prediction, in the only precision it has."""
    try:
        from pomegranate.bayes_classifier import BayesClassifier
        from pomegranate.distributions import Normal
    except ImportError:
        return "not installed"
    torch.set_num_threads(1)  # its import says two
    rows, label = torch.tensor(x).float(), torch.tensor(y)
    peer = BayesClassifier([Normal(covariance_type="diag") for _ in range(CLASSES)]).fit(rows, label)
    return f"{fastest(lambda: peer.predict(rows), 1):.2f}"
