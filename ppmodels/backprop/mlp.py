"""A multilayer perceptron trained by the tape: layers, a loss, and gradient descent."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ppmodels.backprop.matrix import cross_entropy, linear
from ppmodels.backprop.operations import tanh
from ppmodels.backprop.tape import Tape, gradient, value_of

Layer = tuple[list[list[Any]], list[Any]]


@dataclass
class MLP:
    """Linear layers with a nonlinearity between them; its parameters are plain floats between steps.

    layers: weight (M, D) and bias (M,) of each.
    """

    layers: list[Layer]
    activation: Callable[[Any], Any] = tanh

    @classmethod
    def random(cls, sizes: Sequence[int], seed: int = 0, activation: Callable[[Any], Any] = tanh) -> "MLP":
        """Return a network of these widths, inputs first, with weights Normal(0, 1 / D) and biases 0."""
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"sizes must be two or more positive widths; they are {list(sizes)}")
        draw = random.Random(seed)
        layers: list[Layer] = []
        for inputs, outputs in pairwise(sizes):
            weight = [[draw.gauss(0, inputs**-0.5) for _ in range(inputs)] for _ in range(outputs)]
            layers.append((weight, [0.0] * outputs))
        return cls(layers, activation)

    def logits(self, x: Sequence[Sequence[float]], layers: Sequence[Layer] | None = None) -> list[list[Any]]:
        """Return the last layer's outputs, (N, K), for x (N, D); on a tape when `layers` holds nodes."""
        rows: list[list[Any]] = [list(row) for row in x]
        for depth, (weight, bias) in enumerate(self.layers if layers is None else layers):
            if depth:
                rows = [[self.activation(h) for h in row] for row in rows]
            rows = linear(rows, weight, bias)
        return rows

    def predict(self, x: Sequence[Sequence[float]]) -> list[int]:
        """Return the likeliest class of each row."""
        return [max(range(len(row)), key=row.__getitem__) for row in self.logits(x)]

    def step(self, x: Sequence[Sequence[float]], classes: Sequence[int], lr: float, decay: float = 0.0) -> float:
        """Descend once along the gradient of the mean cross-entropy; return the loss before."""
        tape = Tape()
        nodes: list[Layer] = [([tape.variables(*row) for row in w], tape.variables(*b)) for w, b in self.layers]
        rows = self.logits(x, nodes)
        loss = sum(cross_entropy(row, k) for row, k in zip(rows, classes, strict=True)) / len(rows)
        flat = [n for weight, bias in nodes for row in (*weight, bias) for n in row]
        moved = iter([n.value - lr * (g + decay * n.value) for n, g in zip(flat, gradient(loss, flat), strict=True)])
        self.layers = [([[next(moved) for _ in row] for row in w], [next(moved) for _ in b]) for w, b in self.layers]
        return value_of(loss)

    def fit(self, x: Sequence[Sequence[float]], classes: Sequence[int], num_steps: int, lr: float) -> list[float]:
        """Train by full-batch gradient descent; return the loss before every step."""
        return [self.step(x, classes, lr) for _ in range(num_steps)]
