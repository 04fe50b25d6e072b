"""Empirical Bayes: the hyperparameters under which the data are most probable, by Laplace's evidence."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import minimize

from inference.base import Unsupported

ROUNDS = 20  # of mode and hyperparameters in turn
AGREE = 5e-5  # relative change of every hyperparameter below which the rounds end
NOWHERE = 1e12  # minus the evidence where there is no Gaussian
FACTOR = 100.0  # a hyperparameter moves in one round by at most this factor

Evidence = Callable[[Any], float]


def tune(
    model: Any, fields: tuple[str, ...], climb: Callable[[Any], Any], evidence: Callable[[Any, Any], float]
) -> tuple[Any, Any, int]:
    """Return the model with fields at the evidence's maximum, the mode there, and the rounds taken.

    In turn the mode is found under the present fields, and the evidence raised at that mode. At the end its slope
    in the fields, the mode held, is zero: exactly the evidence's maximum where the Hessian does not depend on the
    mode, as in linear models, and MacKay's fixed point elsewhere.

    climb: model -> its mode. evidence: model and mode -> log evidence by the Hessian there.
    Raises: Unsupported when a field is not a positive number, or several.
    Source: MacKay (1992), Neural Computation 4, 415-447, section 4; Bishop (2006), section 3.5.
    """
    start = _read(model, fields)
    mode, rounds = climb(model), 0
    for rounds in range(1, ROUNDS + 1):  # noqa: B007

        def missed(logs: np.ndarray, mode: Any = mode) -> float:
            try:
                value = evidence(_write(model, fields, logs), mode)
            except Unsupported:
                return NOWHERE  # not a maximum under these fields
            return -value if math.isfinite(value) else NOWHERE

        near = [(v - math.log(FACTOR), v + math.log(FACTOR)) for v in start]
        best = minimize(missed, start, method="L-BFGS-B", bounds=near, options={"ftol": 1e-13, "eps": 1e-6})
        far = float(np.abs(best.x - start).max())
        start = best.x
        mode = climb(_write(model, fields, start))
        if far < AGREE:
            break
    return _write(model, fields, start), mode, rounds


def refuse(model: Any, fields: tuple[str, ...]) -> None:
    """Raise unless every field is a positive number, or several, of a model of the collection."""
    if not dataclasses.is_dataclass(model):
        raise Unsupported("tune names fields of a model of the collection; a plain program has none")
    known = [field.name for field in dataclasses.fields(model)]
    for name in fields:
        if name not in known:
            raise ValueError(f"{type(model).__name__} has no field {name!r}; there are: {', '.join(known)}")
        value = getattr(model, name)
        numbers = value if isinstance(value, tuple) else (value,)
        if not numbers or not all(isinstance(v, int | float) and not isinstance(v, bool) and v > 0 for v in numbers):
            raise Unsupported(f"tune starts from positive numbers; {name} is {value!r}")


def _read(model: Any, fields: tuple[str, ...]) -> np.ndarray:
    values = [getattr(model, name) for name in fields]
    return np.log(np.concatenate([np.atleast_1d(np.asarray(value, dtype=float)) for value in values]))


def _write(model: Any, fields: tuple[str, ...], logs: np.ndarray) -> Any:
    new, rest = {}, [float(v) for v in np.exp(logs)]
    for name in fields:
        value = getattr(model, name)
        count = len(value) if isinstance(value, tuple) else 1
        taken, rest = rest[:count], rest[count:]
        new[name] = tuple(taken) if isinstance(value, tuple) else taken[0]
    return dataclasses.replace(model, **new)
