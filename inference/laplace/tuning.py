"""Empirical Bayes: the hyperparameters under which the data are most probable, by Laplace's evidence."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from inference.base import Unsupported
from inference.laplace.summits import Mode

ROUNDS = 30  # of hyperparameters and mode in turn
FACTOR = 3.0  # a hyperparameter moves in one round by at most this factor
APART = 1e-4  # of logarithms, between which slopes are taken
NEAR = 0.02  # a step shorter than this tells too little of how the mode's moving pulls
ROUNDING = 1e-8  # of the evidence: a fall that is none
ROUGH = 0.1  # nats: where less than this was promised and the evidence fell, it is not smooth enough for more

Climb = Callable[[Mode], Mode]


def tune(mode: Mode, fields: tuple[str, ...], climb: Climb, tol: float) -> tuple[Mode, int, bool]:
    """Return the mode under fields where the evidence is highest, the rounds taken, and whether they settled.

    With the mode held, the evidence is cheap, and its slope known; but the Hessian changes as the mode moves. So
    each round takes a quasi-Newton step by that slope and a `pull`, climbs to the mode there, and learns the pull
    from what the evidence gained beyond what it would have with either end's mode held. Rounds end where a step
    promises less than tol, in nats.

    mode: the first. climb: from a point under other fields to the mode there.
    Raises: Unsupported when a field is not a positive number, or several.
    Source: MacKay (1992), Neural Computation 4, 415-447, section 4, for the mode held; Bishop (2006), section 3.5.
    """
    held, logs, reach = _Held(mode.model, fields), _read(mode.model, fields), math.log(FACTOR)
    mode.gaussian  # noqa: B018  (says what is wrong where there is none)
    slope, bend = held.start(logs, mode)
    pull, rounds, settled = np.zeros_like(logs), 0, False
    for rounds in range(1, ROUNDS + 1):  # noqa: B007
        step = _newton(slope + pull, bend, reach)
        promised, length = float(step @ (slope + pull) + 0.5 * step @ bend @ step), float(np.linalg.norm(step))
        if settled := promised < tol:
            break
        ahead = mode.under(held.model(logs + step))
        moved = climb(ahead)
        if length > NEAR:
            beyond = 0.5 * (moved.volume - ahead.volume + held.at(logs, moved).volume - mode.volume)
            pull = pull + (beyond - pull @ step) * step / length**2 if math.isfinite(beyond) else pull
        if moved.log_evidence < mode.log_evidence - ROUNDING * abs(mode.log_evidence):
            reach = 0.5 * length
            if settled := promised < ROUGH:
                break
            continue
        after = held.slope(logs + step, moved)
        bend, reach = _bfgs(bend, step, after - slope), max(reach, 2 * length)
        logs, mode, slope = logs + step, moved, after
    return mode, rounds, settled


@dataclasses.dataclass(frozen=True)
class _Held:
    """The evidence as a function of the fields' logarithms, (F,), with the mode held."""

    whole: Any
    fields: tuple[str, ...]

    def __call__(self, logs: np.ndarray, mode: Mode) -> float:
        return self.at(logs, mode).log_evidence

    def at(self, logs: np.ndarray, mode: Mode) -> Mode:
        return mode.under(self.model(logs))

    def model(self, logs: np.ndarray) -> Any:
        """Return the model with these fields."""
        return _write(self.whole, self.fields, logs)

    def slope(self, logs: np.ndarray, mode: Mode) -> np.ndarray:
        """Return the derivatives in the logarithms, (F,)."""
        sides = APART * np.eye(len(logs))
        return np.array([self(logs + side, mode) - self(logs - side, mode) for side in sides]) / (2 * APART)

    def start(self, logs: np.ndarray, mode: Mode) -> tuple[np.ndarray, np.ndarray]:
        """Return the slope, (F,), and a first guess of the second derivatives, negative definite, (F, F)."""
        sides = 1e-2 * np.eye(len(logs))
        ends = np.array([(self(logs + side, mode), self(logs - side, mode)) for side in sides])  # (F, 2)
        bend = np.abs(ends.sum(1) - 2 * mode.log_evidence) / 1e-4
        return (ends[:, 0] - ends[:, 1]) / 2e-2, -np.diag(bend.clip(1.0))


def _newton(slope: np.ndarray, bend: np.ndarray, reach: float) -> np.ndarray:
    """The step to the top of a parabola, no longer than reach."""
    step = -np.linalg.solve(bend, slope)
    return step * min(1.0, reach / max(float(np.abs(step).max()), 1e-300))


def _bfgs(bend: np.ndarray, step: np.ndarray, change: np.ndarray) -> np.ndarray:
    """What a step and the change of slope along it make of a negative definite matrix.

    Source: Nocedal and Wright (2006), equation 6.19, damped as in procedure 18.2.
    """
    along, found = bend @ step, float(step @ change)
    expected = float(step @ along)
    if found > 0.2 * expected:  # it bends down along the step too little, or not at all
        change = along + 0.8 * expected / (expected - found) * (change - along)
    return bend - np.outer(along, along) / expected + np.outer(change, change) / float(step @ change)


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
