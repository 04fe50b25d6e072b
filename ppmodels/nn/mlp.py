"""Plain layers one after another."""

import itertools
from collections.abc import Sequence

from torch import nn

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "softplus": nn.Softplus, "tanh": nn.Tanh}


def mlp(sizes: Sequence[int], activation: str = "silu") -> nn.Sequential:
    """Linear layers of these sizes with an activation between two: (..., sizes[0]) -> (..., sizes[-1]).

    Raises: ValueError for an unknown activation, or fewer than two sizes.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"no activation {activation!r}; there are: {', '.join(ACTIVATIONS)}")
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"a network needs an input and an output of at least 1; got {tuple(sizes)}")
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])
