"""Bayesian neural network: any torch module whose weights have a prior, and a likelihood around its outputs."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.func import functional_call

from ppmodels.base import Data, Theta
from ppmodels.regression._network import Activation, Prior, layers_of, perceptron, priors, refuse
from ppmodels.regression._outcome import Likelihood, outcome, width


@dataclass(frozen=True)
class BayesianNeuralNetwork:
    r"""Neural network with a prior on every weight, for real outcomes, classes or counts.

    .. math:: w_l \sim N(0, s_l^2 / F_l),\; b_l \sim N(0, s_l^2),\; f = network(x; w, b),\;
        y_n \sim N(f_n, \sigma^2),\; N(f_{n1}, e^{f_{n2}}),\; Cat(softmax f_n) \;\text{or}\; Poisson(e^{f_n})

    with s_l = `scale` of layer l, F_l its inputs, and log sigma ~ N(-1, 1) unless `noise` is known. Scale the
    columns of x, and a real y, to sd 1. Weights are not identified: chains are compared by what they predict.

    Latents:  hidden.weight (H, D), hidden.bias (H,), output.weight (K, H), output.bias (K,); of a network of
              your own, its parameters by their names. noise (), unit of y.
    Given:    x (N, D).
    Observed: y (N,).
    Source:   Neal (1996), Bayesian Learning for Neural Networks, sections 1.2 and 2.1.
    """

    features: int = 1
    hidden: tuple[int, ...] = (20,)  # units of each hidden layer
    activation: Activation = "tanh"
    likelihood: Likelihood = "gaussian"
    classes: int = 2  # of a categorical outcome
    prior: Prior = "normal"
    scale: tuple[float, ...] = (1.0,)  # sd of each layer, one for all or one a layer
    noise: float | None = None  # known sd of a gaussian outcome
    network: nn.Module | None = None  # instead of a perceptron: x (N, ...) -> f (N, K)
    observed: ClassVar[tuple[str, ...]] = ("y",)

    def __post_init__(self) -> None:
        for name in ("features", "classes", *(["hidden"] if self.hidden else [])):
            value = getattr(self, name)
            if min(value if isinstance(value, tuple) else (value,)) < 1:
                raise ValueError(f"{name} must be at least 1; it is {value}")
        known = (self.noise,) if self.noise is not None else ()
        if not all(0 < value < math.inf for value in (*self.scale, *known)):
            raise ValueError(f"scale and noise must be positive and finite; they are {self.scale}, {self.noise}")
        refuse(self.module, self.scale)

    def __deepcopy__(self, memo: Any) -> "BayesianNeuralNetwork":
        return self  # nothing in it ever changes: a network's own weights are never read

    @property
    def module(self) -> nn.Module:
        """The network; its parameters' names are the sites of its weights."""
        if self.network is not None:
            return self.network
        return perceptron(self.features, self.hidden, width(self.likelihood, self.classes), self.activation)

    @property
    def layers(self) -> list[str]:
        """Names of the layers that `scale` speaks of."""
        return layers_of(self.module)

    def inputs(self, rows: int) -> dict[str, Tensor]:
        return {"x": torch.randn(rows, self.features)}

    def model(self, data: Data) -> None:
        self.observe(self.outputs(self.weights(), data), data)

    def weights(self) -> Theta:
        """Sample every weight."""
        return {name: pyro.sample(name, law) for name, law in priors(self.module, self.prior, self.scale).items()}

    def outputs(self, weights: Theta, data: Data) -> Tensor:
        """Return f, (N, K)."""
        x = data.given["x"]
        if self.network is None and (x.ndim != 2 or x.shape[1] != self.features):
            raise ValueError(f"x must be (rows, {self.features}); it is {tuple(x.shape)}")
        f, needed = functional_call(self.module, weights, (x,)), width(self.likelihood, self.classes)
        if f.shape != (len(x), needed):
            raise ValueError(f"a {self.likelihood} network returns (rows, {needed}); it returned {tuple(f.shape)}")
        return f

    def observe(self, outputs: Tensor, data: Data) -> None:
        """Sample the outcome at f, (N, K), and what else the likelihood does not know."""
        noise = self.noise
        if noise is None and self.likelihood == "gaussian":
            noise = pyro.sample("noise", dist.LogNormal(outputs.new_tensor(-1.0), 1.0))
        with data.plate():
            pyro.sample("y", outcome(self.likelihood, outputs, noise))
