"""What an estimator is, as its model tells: a classifier, a regressor, or a density; and what its data may be."""

from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from pyro import poutine
from scipy.sparse import issparse
from sklearn.utils.multiclass import _check_partial_fit_first_call, check_classification_targets
from sklearn.utils.validation import validate_data
from torch.distributions import constraints

from inference.base import Unsupported, fresh
from ppmodels.base import Data, HasClasses, Model

WIDTH = ("dim", "features")  # fields that say how many columns x has


def supervised(model: Any) -> bool:
    """Does it observe y?"""
    return "y" in getattr(model, "observed", ())


def classifies(model: Any) -> bool:
    """Are its y classes?"""
    return supervised(model) and not outcome(model).is_floating_point


def reads_sparse(model: Any) -> bool:
    """May its x be sparse?"""
    return isinstance(model, HasClasses) and model.sparse


def names_of(model: Any) -> set[str]:
    """Return the names of its fields."""
    return {f.name for f in fields(model)} if is_dataclass(model) else set()


def outcome(model: Any) -> torch.dtype:
    """Return what y are: bool, long, or floating; yes or no is told by its law, as torch draws it as a float."""
    try:
        return _remembered(model)
    except TypeError:  # a field that cannot be hashed
        return _outcome(model)


def rows(X: Any) -> Any:
    """Return rows as `Data.of` takes them: sparse, or writeable."""
    return X if issparse(X) else np.require(X, requirements="W")


def fitted(estimator: Any, X: Any, y: Any, least: int = 2) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the rows and y as numbers; set the model that fits them, and classes, which become 0, 1, ..."""
    model = estimator.model
    if not isinstance(model, Model):
        raise TypeError(f"an Estimator takes a model of the collection; got {type(model).__name__}")
    X, y = _validated(estimator, X, y, least, reset=True)
    if classifies(model):
        check_classification_targets(y)
        estimator.classes_, y = np.unique(y, return_inverse=True)
        if len(estimator.classes_) < 2:
            only = estimator.classes_[0]
            raise ValueError(f"Classifier can't train when only one class is present; all y are {only!r}")
        y = y.astype(_kind(model, X))
    estimator.model_ = _sized(estimator, X.shape[1])
    return X, y


def continued(estimator: Any, X: Any, y: Any, classes: Any, first: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Return some more rows; the first ones settle the classes, which must be said then, and the columns.

    Raises: ValueError that names a class that was not said.
    """
    X, y = _validated(estimator, X, y, 1, reset=first)
    if classifies(estimator.model):
        check_classification_targets(y)
        _check_partial_fit_first_call(estimator, classes)
        new = np.setdiff1d(y, estimator.classes_)
        if len(new):
            raise ValueError(
                f"class {new[:1].tolist()[0]!r} is none of {estimator.classes_.tolist()}; say all in the first call"
            )
        y = np.searchsorted(estimator.classes_, y).astype(_kind(estimator.model, X))
    if first:
        estimator.model_ = _sized(estimator, X.shape[1])
    return X, y


def _validated(estimator: Any, X: Any, y: Any, least: int, reset: bool) -> tuple[Any, Any]:
    model, kinds = estimator.model, {"dtype": [np.float64, np.float32], "ensure_min_samples": least, "reset": reset}
    if reads_sparse(model):
        kinds["accept_sparse"] = "csr"
    if not supervised(model):
        return validate_data(estimator, X, **kinds), None
    numeric = not classifies(model)
    X, y = validate_data(estimator, X, y, y_numeric=numeric, **kinds)
    if issparse(X) and estimator.method not in ("em", "exact"):
        raise Unsupported(f"{estimator.method} takes no sparse x; em and exact do")
    return X, np.asarray(y, dtype=X.dtype) if numeric else y


def _sized(estimator: Any, width: int) -> Any:
    """The model with as many columns and classes as the data have."""
    model, names = estimator.model, names_of(estimator.model)
    changed: dict[str, Any] = {name: width for name in WIDTH if name in names}
    if "columns" in names and len(set(model.columns)) == 1:
        changed["columns"] = model.columns[:1] * width
    if classifies(model) and "classes" in names:
        changed["classes"] = len(estimator.classes_)
    elif classifies(model) and len(estimator.classes_) > 2:
        raise ValueError("Only binary classification is supported. The type of the target is multiclass.")
    return replace(model, **changed)


def _kind(model: Any, X: Any) -> Any:
    """The dtype of coded classes."""
    return X.dtype if outcome(model) == torch.bool else np.int64


def _outcome(model: Any) -> torch.dtype:
    with fresh(model) as own, torch.no_grad():
        node: Any = poutine.trace(own.model).get_trace(Data(2, own.inputs(2))).nodes["y"]
    support = node["fn"].support
    if support is constraints.boolean:
        return torch.bool
    return torch.long if isinstance(support, constraints.integer_interval) else node["value"].dtype


_remembered = lru_cache(maxsize=64)(_outcome)
