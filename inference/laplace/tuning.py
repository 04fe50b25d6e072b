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
CARE = 1e-11  # relative gain at which the evidence's climb ends in the last round
NOWHERE = 1e12  # minus the evidence where there is no Gaussian
FACTOR = 100.0  # a hyperparameter moves in one round by at most this factor

SHARES = (1.0, 0.5, 0.25)  # of a round's step that are tried
FALL = 1.0  # nats below the best evidence that a step may lead: at MacKay's fixed point it is not quite stationary

Climb = Callable[[Any, Any], Any]
Evidence = Callable[[Any, Any], float]


def tune(model: Any, fields: tuple[str, ...], climb: Climb, evidence: Evidence) -> tuple[Any, Any, int, bool]:
    """Return the model with fields at the evidence's maximum, the mode there, the rounds taken, and did they settle.

    In turn the mode is found under the present fields, and the evidence raised at that mode. At the end its slope
    in the fields, the mode held, is zero: exactly the evidence's maximum where the Hessian does not depend on the
    mode, as in linear models, and MacKay's fixed point elsewhere. Where rounds lead to less evidence, they end.

    climb: model, and the mode to go on from or None -> its mode. evidence: model and mode -> log evidence by the
        Hessian there.
    Raises: Unsupported when a field is not a positive number, or several.
    Source: MacKay (1992), Neural Computation 4, 415-447, section 4; Bishop (2006), section 3.5.
    """
    start, before, far, settled, rounds = _read(model, fields), [], 1.0, False, 0
    mode = climb(model, None)
    top = _value(evidence, model, mode)
    for rounds in range(1, ROUNDS + 1):  # noqa: B007

        def missed(logs: np.ndarray, mode: Any = mode) -> float:
            return -_value(evidence, _write(model, fields, logs), mode)

        near = [(v - math.log(FACTOR), v + math.log(FACTOR)) for v in start]
        care = max(CARE, 1e-5 * far**2)  # no more than a mode that will still move is worth
        best = minimize(missed, start, method="L-BFGS-B", bounds=near, options={"ftol": care, "eps": 1e-6})
        far = float(np.abs(best.x - start).max())
        before = [*before[-len(start) :], (best.x, best.x - start)]
        settled = far < AGREE
        goal = best.x if settled else _extrapolate(before)
        for share in SHARES:
            logs = start + share * (goal - start)
            moved = climb(_write(model, fields, logs), mode)
            value = _value(evidence, _write(model, fields, logs), moved)
            if value > top - FALL:
                break
        else:
            break
        start, mode, top = logs, moved, max(top, value)
        if settled:
            break
    return _write(model, fields, start), mode, rounds, settled


def _value(evidence: Evidence, model: Any, mode: Any) -> float:
    """The evidence, and next to nothing where there is no Gaussian."""
    try:
        value = evidence(model, mode)
    except Unsupported:
        return -NOWHERE  # not a maximum under these fields
    return value if math.isfinite(value) else -NOWHERE


def _extrapolate(rounds: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Where rounds that each went to g by a change f would end: from the last g, along what earlier ones show.

    Source: Anderson (1965), Journal of the ACM 12, 547-560, section 4.
    """
    ends, changes = (np.stack(each, 1) for each in zip(*rounds, strict=True))  # (H, M), last round last
    g, f = ends[:, -1], changes[:, -1]
    mixture = np.linalg.lstsq(np.diff(changes), f, rcond=1e-6)[0]
    step = np.diff(ends) @ mixture
    return g - step * min(1.0, 3 * np.linalg.norm(f) / max(np.linalg.norm(step), 1e-300))


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
