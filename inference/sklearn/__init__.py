"""scikit-learn's face of any model: one estimator for pipelines, grid searches and `clone`."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from sklearn.base import BaseEstimator
from sklearn.metrics import r2_score
from sklearn.utils import ClassifierTags, RegressorTags, Tags, check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor
from torch.distributions import constraints

import inference
from inference.base import Fit, fresh
from inference.em.incremental import Stream
from inference.pointwise import assignments, pointwise
from inference.sklearn.weights import weights
from inference.tracing.learned import learned
from inference.tracing.over_draws import flatten
from ppmodels.base import Data, HasStatistics, Model

_WIDTH = ("dim", "features")  # fields that say how many columns x has


def _supervised(estimator: "Estimator") -> bool:
    return "y" in getattr(estimator.model, "observed", ())


def _classifies(estimator: "Estimator") -> bool:
    return _supervised(estimator) and not estimator._outcome().is_floating_point()


def _gives_probabilities(estimator: "Estimator") -> bool:
    return not _supervised(estimator) or _classifies(estimator)


def _streams(estimator: "Estimator") -> bool:
    return isinstance(estimator.model, HasStatistics) and not _supervised(estimator)


class Estimator(BaseEstimator):
    """A model of the collection and a back end, as scikit-learn would have them.

    A model that observes y is a classifier where its y are whole numbers or yes and no, else a regressor; one that
    observes only x is a density, and where it has a discrete latent a row, a clusterer. Its fields are parameters too:
    `model__components`. Its width and its number of classes follow the data.

    model: a frozen dataclass with sites called x and y. method: the back end's name. options: what it is called with.
    random_state: seed of the fit and of draws. num_draws: posterior draws that predictions average at most.

    After `fit`: fit_, the `Fit`; model_, the model as fitted; every latent site's mean over draws, such as `loc_`;
    classes_, n_features_in_.
    """

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
        return own | ({f"model__{name}": getattr(self.model, name) for name in self._fields()} if deep else {})

    def set_params(self, **params: Any) -> "Estimator":
        """Set parameters; those of the model give a new model, as models do not change."""
        inner = {name.removeprefix("model__"): params.pop(name) for name in [*params] if name.startswith("model__")}
        super().set_params(**params)
        unknown = inner.keys() - self._fields()
        if unknown:
            raise ValueError(f"{type(self.model).__name__} has no field {', '.join(sorted(unknown))}")
        self.model = replace(self.model, **inner) if inner else self.model
        return self

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> "Estimator":
        """Learn from rows X (N, D), and y (N,) where the model observes it, each as often as its weight, (N,), says."""
        X, y = self._validated(X, y)
        more, options = weights(self.model_, self.method, sample_weight, X)
        data = Data.of(self.model_, x=X, **({} if y is None else {"y": y}), **more)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self._learned(inference.fit(self.method, self.model_, data, seed=seed, **dict(self.options or {}), **options))
        return self

    @available_if(_streams)
    def partial_fit(self, X: Any, y: Any = None) -> "Estimator":
        """Learn from some more rows, whose sums join those of the rows before, by streaming EM."""
        first = not hasattr(self, "stream_")
        X, _ = self._validated(X, None, reset=first)
        if first:
            seed = int(check_random_state(self.random_state).randint(2**31 - 1))
            self.stream_ = Stream(self.model_, seed=seed)
        data = Data.of(self.model_, x=X)
        self.stream_.learn(data)
        draws = {name: value[None, None] for name, value in (self.stream_.theta or {}).items()}
        self._learned(Fit(self.model_, (data,), {}, "em", draws))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class or cluster of each row, (N,), or the outcome's mean."""
        X = self._rows(X)
        if not _supervised(self):
            return self._memberships(X).argmax(-1)
        if _classifies(self):
            return self.classes_[self._log_joint(X).argmax(-1).numpy()]
        return self._over_draws(X, lambda nodes: nodes["y"]["fn"].mean, {}).mean(0).numpy()

    @available_if(_gives_probabilities)
    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class or cluster, (N, C)."""
        X = self._rows(X)
        return self._log_joint(X).softmax(-1).numpy() if _supervised(self) else self._memberships(X)

    @available_if(lambda self: not _supervised(self))
    def score_samples(self, X: Any) -> np.ndarray:
        """Return the log predictive density of each row, (N,): its integral over x is 1."""
        X = self._rows(X)
        found = pointwise(self._at(X)).log_likelihood["x"].flatten(0, 1)
        return (found.logsumexp(0) - np.log(len(found))).numpy()

    def score(self, X: Any, y: Any = None) -> float:
        """Return accuracy, R squared, or the mean log density of a row."""
        if not _supervised(self):
            return float(self.score_samples(X).mean())
        said = self.predict(X)
        return float((said == np.asarray(y)).mean()) if _classifies(self) else float(r2_score(y, said))

    @available_if(lambda self: not _supervised(self))
    def sample(self, n_samples: int = 1) -> np.ndarray:
        """Return new rows (n_samples, D), each from a posterior draw of its own."""
        check_is_fitted(self, "fit_")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        drawn = self.fit_.predict(Data(n_samples), seed=seed)["x"].flatten(0, 1)  # (S, n, D)
        generator = torch.Generator().manual_seed(seed)
        return drawn[torch.randint(len(drawn), (n_samples,), generator=generator), torch.arange(n_samples)].numpy()

    def __sklearn_tags__(self) -> Tags:
        """Return what scikit-learn wants to know of this kind of model."""
        tags = super().__sklearn_tags__()
        if not _supervised(self):
            tags.estimator_type = "density_estimator"
            return tags
        tags.target_tags.required = True
        if _classifies(self):
            tags.estimator_type, tags.classifier_tags = "classifier", ClassifierTags()
            tags.classifier_tags.multi_class = "classes" in self._fields()
        else:
            tags.estimator_type, tags.regressor_tags = "regressor", RegressorTags()
        return tags

    def _validated(self, X: Any, y: Any, reset: bool = True) -> tuple[np.ndarray, np.ndarray | None]:
        """The rows as numbers, and the model that fits them; labels become 0, 1, ..."""
        if not isinstance(self.model, Model):
            raise TypeError(f"an Estimator takes a model of the collection; got {type(self.model).__name__}")
        kinds: dict[str, Any] = {"dtype": [np.float64, np.float32], "ensure_min_samples": 2, "reset": reset}
        sizes = self._fields()
        if not _supervised(self):
            X, y, changed = validate_data(self, X, **kinds), None, {}
        else:
            classes = _classifies(self)
            X, y = validate_data(self, X, y, y_numeric=not classes, **kinds)
            changed = {}
            if classes:
                check_classification_targets(y)
                self.classes_, y = np.unique(y, return_inverse=True)
                self._check_classes("classes" in sizes)
                changed = {"classes": len(self.classes_)} if "classes" in sizes else {}
                y = y.astype(X.dtype if self._outcome().dtype == torch.bool else np.int64)
            else:
                y = np.asarray(y, dtype=X.dtype)
        changed |= {name: X.shape[1] for name in _WIDTH if name in sizes}
        self.model_ = replace(self.model, **changed)  # pyright: ignore[reportArgumentType]
        return X, y

    def _fields(self) -> set[str]:
        return {f.name for f in fields(self.model)} if is_dataclass(self.model) else set()

    def _check_classes(self, many: bool) -> None:
        if len(self.classes_) < 2:
            raise ValueError(f"Classifier can't train when only one class is present; all y are {self.classes_[0]!r}")
        if len(self.classes_) > 2 and not many:
            raise ValueError("Only binary classification is supported. The type of the target is multiclass.")

    def _outcome(self) -> Tensor:
        """An example of y; yes or no is told by its law, as torch draws it as a float."""
        with fresh(self.model) as own, torch.no_grad():
            data = Data(2, own.inputs(2))
            node: Any = poutine.trace(own.model).get_trace(data).nodes["y"]
        support = node["fn"].support
        if support is constraints.boolean:
            return node["value"].bool()
        return node["value"].long() if isinstance(support, constraints.integer_interval) else node["value"]

    def _learned(self, fit: Fit) -> None:
        self.fit_ = fit
        for name, value in fit.draws.items():
            setattr(self, f"{name}_", value.double().mean((0, 1)).numpy())

    def _rows(self, X: Any) -> np.ndarray:
        check_is_fitted(self, "fit_")
        learned_in = next((d.dtype for d in self.fit_.draws.values() if d.is_floating_point()), torch.float64)
        kind = np.dtype(str(learned_in).removeprefix("torch."))
        return np.require(validate_data(self, X, dtype=kind, reset=False), requirements="W")

    def _at(self, X: np.ndarray) -> Fit:
        """The fit, asked about these rows."""
        return replace(self.fit_, args=(Data.of(self.model_, x=X),))

    def _memberships(self, X: np.ndarray) -> np.ndarray:
        (found,) = assignments(self._at(X)).values()
        return np.asarray(found)

    def _log_joint(self, X: np.ndarray) -> Tensor:
        """Log p(y = c, x | data) of new rows, up to a constant a row, (N, C)."""

        def joint(nodes: Any) -> Tensor:
            observed = [nodes[name] for name in self.model_.observed]
            return torch.stack([node["fn"].log_prob(node["value"]) for node in observed]).sum(0)  # (N,)

        classes = range(len(self.classes_))
        kind = torch.as_tensor(X).dtype if self._outcome().dtype == torch.bool else torch.long
        by_class = [self._over_draws(X, joint, {"y": torch.full((len(X),), c, dtype=kind)}) for c in classes]
        return torch.stack(by_class, -1).logsumexp(0)

    def _over_draws(self, X: np.ndarray, value: Any, observed: dict[str, Tensor]) -> Tensor:
        """A value of the trace at posterior draws, evenly spaced, (S, N)."""
        draws, shape = flatten(self.fit_.draws)
        x = torch.as_tensor(X)
        inside = {"x": x, **observed} if "x" in self.model_.observed else observed
        given = {} if "x" in self.model_.observed else {"x": x}
        data, found = Data(len(X), given, inside), []
        with fresh(self.model_, (data,)) as own, learned(self.fit_), torch.no_grad():
            for index in np.unique(np.linspace(0, shape.numel() - 1, self.num_draws).astype(int)):
                at = {name: draw[index] for name, draw in draws.items()} | inside
                found.append(value(poutine.trace(pyro.condition(own.model, data=at)).get_trace(data).nodes))
        return torch.stack(found)
