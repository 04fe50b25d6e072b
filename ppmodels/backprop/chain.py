"""Marginals as derivatives of log Z: backpropagation through the forward algorithm is forward-backward."""

from collections.abc import Sequence
from typing import Any

from ppmodels.backprop.operations import add, logsumexp
from ppmodels.backprop.tape import Tape, gradient, value_of

Scores = Sequence[Sequence[Any]]


def log_partition(unary: Scores, pairwise: Scores) -> Any:
    r"""Return log Z of a chain of labels by the forward algorithm.

    .. math:: Z = \sum_{y_1 \dots y_T} \exp\Big(\sum_t u_t[y_t] + \sum_{t > 1} v[y_{t-1}, y_t]\Big)

    A hidden Markov model has u_t[k] = log p(x_t | k), plus log p(k) at the first, and v = log p(next | k);
    then log Z is log p(x). unary: u, (T, K). pairwise: v, (K, K). Floats or nodes.

    Raises: ValueError when the shapes do not fit.
    """
    states = len(pairwise)
    if not unary or any(len(row) != states for row in (*unary, *pairwise)):
        raise ValueError(f"unary scores must be (T, {states}), T >= 1, and pairwise ({states}, {states})")
    forward = list(unary[0])
    for here in unary[1:]:
        forward = [
            add(here[k], logsumexp(*(add(forward[j], pairwise[j][k]) for j in range(states)))) for k in range(states)
        ]
    return logsumexp(*forward)


def marginals(unary: Scores, pairwise: Scores) -> tuple[float, list[list[float]], list[list[float]]]:
    """Return log Z, p(y_t = k), (T, K), and the expected number of steps from j to k, (K, K).

    The derivative of log Z by the score of a feature is the expected count of that feature.

    Source: Eisner (2016), Inside-outside and forward-backward algorithms are just backprop.
    """
    tape = Tape()
    u = [tape.variables(*row) for row in unary]
    v = [tape.variables(*row) for row in pairwise]
    log_z = log_partition(u, v)
    slope = iter(gradient(log_z, [node for row in (*u, *v) for node in row]))
    return (
        value_of(log_z),
        [[next(slope) for _ in row] for row in u],
        [[next(slope) for _ in row] for row in v],
    )
