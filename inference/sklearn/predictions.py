"""What a fitted estimator's model says of new rows, averaged over posterior draws."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from torch import Tensor

from inference.base import Fit, fresh
from inference.pointwise import assignments, pointwise
from inference.sklearn.kinds import outcome, rows
from inference.tracing.learned import learned
from inference.tracing.over_draws import flatten
from ppmodels.base import Data, HasClasses


def memberships(estimator: Any, X: np.ndarray) -> np.ndarray:
    """Return the probability of each cluster, (N, K)."""
    (found,) = assignments(_at(estimator, X)).values()
    return np.asarray(found)


def log_density(estimator: Any, X: np.ndarray) -> np.ndarray:
    """Return the log predictive density of each row, (N,)."""
    found = pointwise(_at(estimator, X)).log_likelihood["x"].flatten(0, 1)
    return (found.logsumexp(0) - np.log(len(found))).numpy()


def log_joint(estimator: Any, X: np.ndarray) -> Tensor:
    """Return log p(y = c, x | data) of new rows, up to a constant a row, (N, C)."""
    model, x = estimator.model_, rows(X)
    if isinstance(model, HasClasses):
        none = np.full(x.shape[0], -1)  # of the classes is known
        data = Data.of(model, x=x, y=none)
        found = [model.log_joint(theta, data) for theta in _draws(estimator)]
        return torch.stack(found).logsumexp(0)

    def joint(nodes: Any) -> Tensor:
        observed = [nodes[name] for name in model.observed]
        return torch.stack([node["fn"].log_prob(node["value"]) for node in observed]).sum(0)  # (N,)

    classes = range(len(estimator.classes_))
    kind = torch.as_tensor(x).dtype if outcome(model) == torch.bool else torch.long
    by_class = [_over_draws(estimator, x, joint, {"y": torch.full((len(x),), c, dtype=kind)}) for c in classes]
    return torch.stack(by_class, -1).logsumexp(0)


def mean(estimator: Any, X: np.ndarray) -> np.ndarray:
    """Return the outcome's mean, (N,)."""
    return _over_draws(estimator, rows(X), lambda nodes: nodes["y"]["fn"].mean, {}).mean(0).numpy()


def _at(estimator: Any, X: np.ndarray) -> Fit:
    """The fit, asked about these rows."""
    return replace(estimator.fit_, args=(Data.of(estimator.model_, x=rows(X)),))


def _draws(estimator: Any) -> list[dict[str, Tensor]]:
    """Posterior draws, evenly spaced, as many as are averaged at most."""
    draws, shape = flatten(estimator.fit_.draws)
    which = np.unique(np.linspace(0, shape.numel() - 1, estimator.num_draws).astype(int))
    return [{name: draw[index] for name, draw in draws.items()} for index in which]


def _over_draws(estimator: Any, x: Any, value: Callable[[Any], Tensor], observed: dict[str, Tensor]) -> Tensor:
    """A value of the trace at posterior draws, (S, N)."""
    x = torch.as_tensor(x)
    inside = {"x": x, **observed} if "x" in estimator.model_.observed else observed
    given = {} if "x" in estimator.model_.observed else {"x": x}
    data, found = Data(len(x), given, inside), []
    with fresh(estimator.model_, (data,)) as own, learned(estimator.fit_), torch.no_grad():
        for draw in _draws(estimator):
            found.append(value(poutine.trace(pyro.condition(own.model, data=draw | inside)).get_trace(data).nodes))
    return torch.stack(found)
