"""One estimator for all models, judged by scikit-learn's own checks."""

import pickle

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn", minversion="1.6")

from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from inference.base import Unsupported
from inference.sklearn import Estimator
from ppmodels.classification.logistic import LogisticRegression
from ppmodels.classification.naive_bayes import NaiveBayes
from ppmodels.clustering.gmm import GaussianMixture
from ppmodels.regression.linear import LinearRegression

MIXTURE = Estimator(GaussianMixture(components=2), method="em", options={"num_restarts": 1})
LINE = Estimator(LinearRegression(), method="exact", options={"num_samples": 20})


LOGISTIC = Estimator(LogisticRegression(), method="mode", options={"num_restarts": 1})


def known(estimator):
    """Checks that cannot pass, and why."""
    if estimator.method == "exact":
        kinds = ("pandas_series", "not_an_array", "list", "not_overwritten", "shape")
        names = [f"check_sample_weights_{kind}" for kind in kinds]
        names += [f"check_sample_weight_equivalence_on_{kind}_data" for kind in ("dense", "sparse")]
        return dict.fromkeys(names, "exact posteriors take no weights, and say so")
    reason = "its starts are drawn from the rows, and so differ where rows are repeated"
    return {"check_sample_weight_equivalence_on_dense_data": reason} if estimator.method == "em" else {}


@parametrize_with_checks([LINE, MIXTURE, LOGISTIC], expected_failed_checks=known)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def test_mixture_in_a_pipeline_and_a_grid():
    x = np.random.default_rng(0).permutation(load_iris().data)
    pipe = make_pipeline(StandardScaler(), clone(MIXTURE))
    found = GridSearchCV(pipe, {"estimator__model__components": [1, 2]}, cv=2).fit(x)
    best = found.best_estimator_[-1]
    assert found.best_params_ == {"estimator__model__components": 2}
    assert best.loc_.shape == (2, 4)
    assert best.weights_.sum() == pytest.approx(1)
    assert found.predict_proba(x).sum(1) == pytest.approx(1)
    setosa = found.predict(load_iris().data[:50])
    assert (setosa == setosa[0]).all()
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.predict(x), found.predict(x))
    assert best.sample(7).shape == (7, 4)


def test_score_samples_is_a_density_and_partial_fit_learns_on():
    x = np.concatenate([np.random.default_rng(0).normal(m, 1, (100, 1)) for m in (-3, 3)])
    mixture = clone(MIXTURE).fit(x)
    grid = np.linspace(-40, 40, 8001)[:, None]
    assert np.exp(mixture.score_samples(grid)).sum() * 0.01 == pytest.approx(1, abs=1e-6)
    assert mixture.score(x) == pytest.approx(mixture.score_samples(x).mean())
    assert mixture.score_samples(x[:1]) == pytest.approx(mixture.score_samples(x)[:1])
    stream = clone(MIXTURE)
    for part in np.random.default_rng(1).permutation(x).reshape(4, 50, 1):
        stream.partial_fit(part)
    assert np.sort(stream.loc_[:, 0]) == pytest.approx([-3, 3], abs=0.6)


def test_classifier_keeps_labels_and_refuses_three():
    x, y = load_breast_cancer(return_X_y=True)
    names = np.array(["bad", "good"])[y]
    pipe = make_pipeline(StandardScaler(), Estimator(LogisticRegression(), method="mode"))
    pipe.fit(x[:, :4], names)
    assert list(pipe.classes_) == ["bad", "good"]
    assert pipe.score(x[:, :4], names) > 0.85
    assert pipe.predict_proba(x[:, :4]).shape == (569, 2)
    with pytest.raises(ValueError, match="Only binary"):
        pipe.fit(load_iris().data, load_iris().target)


def test_fields_of_the_model_are_parameters():
    estimator = clone(MIXTURE).set_params(model__components=3, method="svi")
    assert estimator.model.components == 3
    assert MIXTURE.model.components == 2
    with pytest.raises(ValueError, match="has no field colour"):
        estimator.set_params(model__colour=1)
    with pytest.raises(TypeError, match="model of the collection"):
        Estimator(torch.nn.Linear(1, 1)).fit(np.ones((3, 1)))


def test_several_classes_under_any_labels():
    x, y = load_iris(return_X_y=True)
    names = load_iris().target_names[y]
    bayes = Estimator(NaiveBayes(columns=("gaussian",) * 4), method="exact", options={"num_samples": 20})
    bayes.fit(x, names)
    assert list(bayes.classes_) == sorted(set(names))
    assert bayes.score(x, names) > 0.94
    assert bayes.predict_proba(x).sum(1) == pytest.approx(1)


def test_weights_are_repetitions_or_refused():
    x, y = load_breast_cancer(return_X_y=True)
    x, often = StandardScaler().fit_transform(x[:120, :3]), np.arange(120) % 3
    ours = clone(LOGISTIC).fit(x, y[:120], sample_weight=often)
    theirs = clone(LOGISTIC).fit(x.repeat(often, 0), y[:120].repeat(often))
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-6)
    assert ours.predict_proba(x) == pytest.approx(theirs.predict_proba(x), abs=1e-6)
    one = Estimator(GaussianMixture(components=1), method="em")
    np.testing.assert_allclose(
        clone(one).fit(x, sample_weight=often).loc_, clone(one).fit(x.repeat(often, 0)).loc_, atol=1e-9
    )
    with pytest.raises(Unsupported, match="exact takes no sample_weight with LinearRegression"):
        clone(LINE).fit(x, y[:120].astype(float), sample_weight=often)
    with pytest.raises(ValueError, match="at least one non-zero number"):
        clone(LOGISTIC).fit(x, y[:120], sample_weight=0 * often)
