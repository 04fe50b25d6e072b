"""Weights of past slopes: integrals of the polynomial that runs through them."""

import math


def adams_bashforth(knots: list[float], end: float) -> list[float]:
    """Weights of the slopes at the knots, newest first, whose sum is their polynomial's mean up to `end`."""
    width = end - knots[0]
    scaled = [(knot - knots[0]) / width for knot in knots]  # the step runs over 0..1
    return _weights(scaled, [1 / (power + 1) for power in range(len(knots))])


def exponential(knots: list[float], end: float) -> list[float]:
    """Weights w of values at the knots, newest first.

    Returns: weights whose sum is the integral of exp(u - end) times the values' polynomial, from the newest
    knot up to `end`.
    """
    h = end - knots[0]
    moments = [-math.expm1(-h)]
    for power in range(1, len(knots)):
        moments.append(h**power - power * moments[-1])
    return _weights([knot - knots[0] for knot in knots], moments)


def _weights(knots: list[float], moments: list[float]) -> list[float]:
    """The integral of every Lagrange polynomial, from those of the powers of u."""
    weights = []
    for j, own in enumerate(knots):
        coefficients = [1.0]  # lowest power first
        for k, other in enumerate(knots):
            if k != j:
                longer = zip([0.0, *coefficients], [*coefficients, 0.0], strict=True)
                coefficients = [(below - other * same) / (own - other) for below, same in longer]
        weights.append(sum(c * moment for c, moment in zip(coefficients, moments, strict=True)))
    return weights
