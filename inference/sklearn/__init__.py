"""scikit-learn's face of any model: one estimator for pipelines, grid searches and `clone`."""

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.metrics import r2_score
from sklearn.utils import ClassifierTags, RegressorTags, Tags, check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

import inference
from inference.base import Fit
from inference.sklearn import predictions
from inference.sklearn.kinds import classifies, continued, fitted, names_of, reads_sparse, rows, supervised
from inference.sklearn.weights import weights
from ppmodels.base import Data

__all__ = ["Estimator"]


def _gives_probabilities(estimator: "Estimator") -> bool:
    return not supervised(estimator.model) or classifies(estimator.model)


def _is_density(estimator: "Estimator") -> bool:
    return not supervised(estimator.model)


def _streams(estimator: "Estimator") -> bool:
    inference.stream(estimator.method, estimator.model)  # refuses in one line, which is then the cause
    return True


class Estimator(BaseEstimator):
    """A model of the collection and a back end, as scikit-learn would have them.

    A model that observes y is a classifier where its y are whole numbers or yes and no, else a regressor; one that
    observes only x is a density, and where it has a discrete latent a row, a clusterer. Its fields are parameters too:
    `model__components`. Its width, its number of classes, and its columns where all are of one kind, follow the data.

    model: a frozen dataclass with sites called x and y. method: the back end's name. options: what it is called with.
    random_state: seed of the fit and of draws. num_draws: posterior draws that predictions average at most.

    After `fit`: fit_, the `Fit`; model_, the model as fitted; every latent site's mean over draws, such as `loc_`;
    classes_, n_features_in_. After `partial_fit` also stream_, what the rows so far have said.
    """

    fit_: Fit
    model_: Any
    stream_: Any
    classes_: np.ndarray
    _sites: tuple[str, ...]

    def __init__(
        self,
        model: Any,
        *,
        method: str = "mode",
        options: Mapping[str, Any] | None = None,
        random_state: Any = 0,
        num_draws: int = 200,
    ) -> None:
        self.model, self.method, self.options = model, method, options
        self.random_state, self.num_draws = random_state, num_draws

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters; deep adds the model's fields as `model__name`."""
        own = super().get_params(deep=False)
        inner = {f"model__{name}": getattr(self.model, name) for name in names_of(self.model)}
        return own | (inner if deep else {})

    def set_params(self, **params: Any) -> "Estimator":
        """Set parameters; those of the model give a new model, as models do not change."""
        inner = {name.removeprefix("model__"): params.pop(name) for name in [*params] if name.startswith("model__")}
        super().set_params(**params)
        unknown = inner.keys() - names_of(self.model)
        if unknown:
            raise ValueError(f"{type(self.model).__name__} has no field {', '.join(sorted(unknown))}")
        self.model = replace(self.model, **inner) if inner else self.model
        return self

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> "Estimator":
        """Learn from rows X (N, D), and y (N,) where the model observes it, each as often as its weight, (N,), says."""
        X, y = fitted(self, X, y)
        more, options = weights(self.model_, self.method, sample_weight, X)
        data = Data.of(self.model_, x=rows(X), **({} if y is None else {"y": y}), **more)
        options = dict(self.options or {}) | options
        vars(self).pop("stream_", None)
        return self._learned(inference.fit(self.method, self.model_, data, seed=self._seed(), **options))

    @available_if(_streams)
    def partial_fit(self, X: Any, y: Any = None, classes: Any = None, sample_weight: Any = None) -> "Estimator":
        """Learn from some more rows, which may then be forgotten; the first call, and one after `fit`, begins.

        "exact" adds sums, and knows what one fit to all rows would; so does "em" where y is observed, and else it
        follows the stream (`inference.em.Stream`); "mode" and "svi" take the next steps of one optimiser
        (`inference.training.pieces`). Of `options` those count that the method's `Stream` has. Others learn from all
        rows at once, and have no partial_fit. classes: all that there will be, (C,), in the first call.
        """
        first = not hasattr(self, "stream_")
        X, y = continued(self, X, y, classes, first)
        more, options = weights(self.model_, self.method, sample_weight, X)
        data = Data.of(self.model_, x=rows(X), **({} if y is None else {"y": y}), **more)
        stream = self._stream() if first else self.stream_
        stream.learn(data, **options)
        self.stream_ = stream
        if first:
            return self._learned(stream.fit())
        for name in self._sites:  # what rows before have said
            vars(self).pop(name, None)
        return self

    def __getattr__(self, name: str) -> Any:
        """Learned attributes after `partial_fit`, which computes them when they are first asked for."""
        if name in vars(self).get("_sites", ()):
            return vars(self._learned(self.stream_.fit()))[name]
        return object.__getattribute__(self, name)  # says what is wrong, and why

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class or cluster of each row, (N,), or the outcome's mean."""
        X = self._rows(X)
        if not supervised(self.model):
            return predictions.memberships(self, X).argmax(-1)
        if classifies(self.model):
            return self.classes_[predictions.log_joint(self, X).argmax(-1).numpy()]
        return predictions.mean(self, X)

    @available_if(_gives_probabilities)
    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class or cluster, (N, C)."""
        X = self._rows(X)
        if supervised(self.model):
            return predictions.log_joint(self, X).softmax(-1).numpy()
        return predictions.memberships(self, X)

    @available_if(_is_density)
    def score_samples(self, X: Any) -> np.ndarray:
        """Return the log predictive density of each row, (N,): its integral over x is 1."""
        return predictions.log_density(self, self._rows(X))

    def score(self, X: Any, y: Any = None) -> float:
        """Return accuracy, R squared, or the mean log density of a row."""
        if not supervised(self.model):
            return float(self.score_samples(X).mean())
        said = self.predict(X)
        return float((said == np.asarray(y)).mean()) if classifies(self.model) else float(r2_score(y, said))

    @available_if(_is_density)
    def sample(self, n_samples: int = 1) -> np.ndarray:
        """Return new rows (n_samples, D), each from a posterior draw of its own."""
        check_is_fitted(self, "fit_")
        seed = self._seed()
        drawn = self.fit_.predict(Data(n_samples), seed=seed)["x"].flatten(0, 1)  # (S, n, D)
        generator = torch.Generator().manual_seed(seed)
        return drawn[torch.randint(len(drawn), (n_samples,), generator=generator), torch.arange(n_samples)].numpy()

    def __sklearn_tags__(self) -> Tags:
        """Return what scikit-learn wants to know of this kind of model."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = tags.input_tags.positive_only = reads_sparse(self.model)  # counts
        if not supervised(self.model):
            tags.estimator_type = "density_estimator"
            return tags
        tags.target_tags.required = True
        if classifies(self.model):
            tags.estimator_type, tags.classifier_tags = "classifier", ClassifierTags()
            tags.classifier_tags.multi_class = "classes" in names_of(self.model)
        else:
            tags.estimator_type, tags.regressor_tags = "regressor", RegressorTags()
        return tags

    def _stream(self) -> Any:
        """What learns from rows in pieces, told what it knows of the options."""
        kind = type(inference.stream(self.method, self.model_))
        known = inspect.signature(kind).parameters.keys() - {"model", "seed"}
        told = {name: value for name, value in (self.options or {}).items() if name in known}
        if self.method == "em" and supervised(self.model):
            told["latent"] = False
        return kind(self.model_, seed=self._seed(), **told)

    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _learned(self, fit: Fit) -> "Estimator":
        means = {f"{name}_": value.double().mean((0, 1)).numpy() for name, value in fit.draws.items()}
        vars(self).update(means, fit_=fit, _sites=("fit_", *means))
        return self

    def _rows(self, X: Any) -> Any:
        check_is_fitted(self, "fit_")
        learned_in = next((d.dtype for d in self.fit_.draws.values() if d.is_floating_point()), torch.float64)
        kind = np.dtype(str(learned_in).removeprefix("torch."))
        sparse = "csr" if reads_sparse(self.model) else False
        return validate_data(self, X, dtype=kind, reset=False, accept_sparse=sparse)
