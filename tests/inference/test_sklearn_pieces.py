"""Rows in pieces: sums give what one fit to all rows gives; steps end where the optimum is; the rest is refused."""

import pickle

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn", minversion="1.6")

from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.naive_bayes import MultinomialNB
from sklearn.utils.estimator_checks import parametrize_with_checks

import inference
from inference import information, mode
from inference.base import Unsupported
from inference.sklearn import Estimator
from ppmodels.base import Data
from ppmodels.classification.logistic import LogisticRegression
from ppmodels.classification.naive_bayes import NaiveBayes
from ppmodels.clustering.dirichlet_process import DirichletProcessMixture
from ppmodels.clustering.kmeans import KMeans
from ppmodels.parametric.conjugate import ConjugateFamily
from ppmodels.regression.linear import LinearRegression

BAYES = Estimator(NaiveBayes(columns=("gaussian",)), method="em", options={"prior": True, "num_restarts": 1})
TEXT = Estimator(NaiveBayes(columns=("multinomial",), alpha=2.0), method="em", options={"prior": True})
IRIS = load_iris(return_X_y=True)


def in_pieces(estimator, x, y, size=37, **first):
    order = np.random.default_rng(0).permutation(x.shape[0])
    for start in range(0, x.shape[0], size):
        rows = order[start : start + size]
        estimator.partial_fit(x[rows], y[rows], **({} if start else first))
    return estimator


def text(rows=120, words=400):
    generator = np.random.default_rng(0)
    y = generator.integers(3, size=rows)
    rate = generator.gamma(0.1, size=(3, words))
    return sparse.csr_matrix(generator.poisson(rate[y]).astype(float)), np.array(["art", "biology", "chess"])[y]


def known(estimator):
    """Checks that cannot pass, and why."""
    if estimator.model.sparse:
        said = {"check_positive_only_tag_during_fit": "what is negative is named by row and column, in other words"}
        return said | {"check_classifiers_train": "its blobs differ in length, which counts of words leave out"}
    return {}


@pytest.mark.slow
@parametrize_with_checks(
    [BAYES, clone(TEXT).set_params(method="exact", options={"num_samples": 50})], expected_failed_checks=known
)
def test_scikit_learns_own_checks_of_classes_in_pieces(estimator, check):
    check(estimator)


@pytest.mark.parametrize("noise", [0.5, None])
def test_a_line_of_pieces_is_the_line_of_all_rows(noise):
    x, _ = IRIS
    model = LinearRegression(features=3, noise=noise)
    line = Estimator(model, method="exact", options={"num_samples": 30})
    pieces, whole = in_pieces(clone(line), x[:, :3], x[:, 3]), clone(line).fit(x[:, :3], x[:, 3])
    for name, draws in whole.fit_.draws.items():  # the same law and the same seed
        torch.testing.assert_close(pieces.fit_.draws[name], draws, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(pieces.predict(x[:, :3]), whole.predict(x[:, :3]), rtol=1e-10)


@pytest.mark.parametrize("law", ["poisson", "exponential", "bernoulli", "normal"])
def test_a_family_of_pieces_is_the_family_of_all_rows(law):
    y = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0], dtype=torch.float64) + (1e4 if law == "normal" else 0)
    model = ConjugateFamily(law=law)
    stream = inference.stream("exact", model)
    for piece in y.split(3):
        stream.learn(Data.of(model, y=piece))
    ours, theirs = stream.fit(), inference.fit("exact", model, Data.of(model, y=y))
    for name, draws in theirs.draws.items():
        torch.testing.assert_close(ours.draws[name], draws, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", ["em", "exact"])
def test_naive_bayes_of_pieces_is_that_of_all_rows(method):
    x, y = IRIS
    names, often = load_iris().target_names[y], np.arange(150) % 3
    x = np.where(np.random.default_rng(1).random(x.shape) < 0.1, 0.0, x)
    bayes = clone(BAYES).set_params(
        method=method, options={"num_samples": 30} if method == "exact" else {"prior": True}
    )
    pieces, whole = in_pieces(clone(bayes), x, names, classes=np.unique(names)), clone(bayes).fit(x, names)
    np.testing.assert_allclose(pieces.loc_, whole.loc_, rtol=1e-10)
    np.testing.assert_allclose(pieces.predict_proba(x), whole.predict_proba(x), rtol=1e-8, atol=1e-12)
    heavy = clone(bayes).partial_fit(x, names, classes=np.unique(names), sample_weight=often)
    repeated = clone(bayes).fit(x.repeat(often, 0), names.repeat(often))
    np.testing.assert_allclose(heavy.precision_, repeated.precision_, rtol=1e-8)


def test_sparse_text_in_pieces_has_the_words_of_scikit_learn():
    x, y = text()
    ours = in_pieces(clone(TEXT), x, y, classes=np.unique(y))
    theirs = in_pieces(MultinomialNB(), x, y, classes=np.unique(y))
    np.testing.assert_allclose(ours.word_prob_, np.exp(theirs.feature_log_prob_), rtol=1e-10)
    assert (ours.predict(x) == theirs.predict(x)).mean() > 0.99  # their classes are not smoothed
    np.testing.assert_allclose(ours.predict_proba(x), ours.predict_proba(x.toarray()), rtol=1e-8, atol=1e-12)
    dense = clone(TEXT).fit(x.toarray(), y)
    np.testing.assert_allclose(clone(TEXT).fit(x, y).word_prob_, dense.word_prob_, rtol=1e-10)
    assert ours.fit_.info["message"] == "4 batches of 120 rows in all"
    data = Data.of(dense.model_, x=x, y=np.unique(y, return_inverse=True)[1])
    solid = Data.of(dense.model_, x=x.toarray(), y=data.observed["y"])
    assert float(dense.model_.log_evidence(data)) == pytest.approx(float(dense.model_.log_evidence(solid)), rel=1e-10)
    with pytest.raises(Unsupported, match="svi takes no sparse x; em and exact do"):
        clone(TEXT).set_params(method="svi").partial_fit(x, y, classes=np.unique(y))
    x = x.tolil()
    x[7, 3] = -1.0
    with pytest.raises(ValueError, match=r"x is -1\.0 in row 7, column 3"):
        clone(TEXT).fit(x.tocsr(), y)


@pytest.mark.parametrize("method", ["mode", "svi"])
def test_steps_on_pieces_end_near_the_mode_and_go_on_after_a_pickle(method):
    x, y = load_breast_cancer(return_X_y=True)
    x = ((x - x.mean(0)) / x.std(0))[:, [1, 4, 9]]
    logistic = Estimator(LogisticRegression(), method=method, options={"rows": 569, "num_samples": 400})
    for sweep in range(5):
        in_pieces(logistic, x, y, 100, **({} if sweep else {"classes": [0, 1]}))
    model = LogisticRegression(features=3)
    best = mode.fit(model, Data.of(model, x=x, y=y.astype(float)))
    error = information.standard_errors(best)["coef"].numpy()
    assert (abs(logistic.coef_ - best.draws["coef"][0, 0].numpy()) < error / 2).all()
    copy = pickle.loads(pickle.dumps(logistic))
    again = [each.partial_fit(x[:50], y[:50]).coef_ for each in (logistic, copy)]
    np.testing.assert_array_equal(*again)


@pytest.mark.parametrize(
    ("model", "method", "said"),
    [
        (LogisticRegression(), "mcmc", "mcmc learns from all rows at once; in pieces do: em, exact, mode, svi"),
        (LogisticRegression(), "exact", "LogisticRegression has no posterior by sums over rows"),
        (KMeans(), "em", "KMeans has no statistics, maximise and expected_log_joint"),
    ],
)
def test_what_needs_all_rows_at_once_has_no_partial_fit(model, method, said):
    estimator = Estimator(model, method=method)
    assert not hasattr(estimator, "partial_fit")
    with pytest.raises(AttributeError) as caught:
        estimator.partial_fit(IRIS[0])
    assert isinstance(caught.value.__cause__, Unsupported)
    assert said in str(caught.value.__cause__)


def test_pieces_that_cannot_be_are_named_and_leave_nothing_behind():
    x, y = IRIS
    bayes = clone(BAYES)
    with pytest.raises(ValueError, match="classes must be passed on the first call to partial_fit"):
        bayes.partial_fit(x, y)
    bayes.partial_fit(x[:140], y[:140], classes=[0, 1, 2])
    before = bayes.loc_.copy()
    with pytest.raises(ValueError, match=r"class 7 is none of \[0, 1, 2\]; say all in the first call"):
        bayes.partial_fit(x[140:], y[140:] + 5)
    with pytest.raises(ValueError, match="not the same as on last call"):
        bayes.partial_fit(x[140:], y[140:], classes=[0, 1])
    assert (bayes.loc_ == before).all()
    assert bayes.stream_.rows == 140
    assert not hasattr(bayes.fit(x, y), "stream_")
    process = DirichletProcessMixture()
    with pytest.raises(ValueError, match="batch_steps, lr and rows must be positive"):
        inference.stream("mode", process, batch_steps=0)
