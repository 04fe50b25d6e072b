"""The network's tangent: the model for which the Gauss-Newton matrix is no approximation."""

import warnings
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.func import jvp

from ppmodels.base import Data, HasNetwork, Theta


@dataclass(frozen=True, eq=False)
class Linearised:
    """f(x; w*) + J(x) (w - w*) in place of f(x; w), with the same priors and likelihood.

    Draws of a Gauss-Newton posterior are far too wide for the network itself, and right for this.

    Source: Immer, Korzepa and Bauer (2021), AISTATS, equation 10.
    """

    whole: HasNetwork
    at: Theta

    @property
    def observed(self) -> tuple[str, ...]:
        """Names of the observed sites."""
        return self.whole.observed

    def __deepcopy__(self, memo: Any) -> "Linearised":
        return self

    @property
    def module(self) -> Any:
        """The network."""
        return self.whole.module

    def inputs(self, rows: int) -> dict[str, Tensor]:
        """Return example values of what is given."""
        return self.whole.inputs(rows)

    def model(self, data: Data) -> None:
        """Tell the story with the tangent instead of the network."""
        self.observe(self.outputs(self.weights(), data), data)

    def weights(self) -> Theta:
        """Sample every weight."""
        return self.whole.weights()

    def outputs(self, weights: Theta, data: Data) -> Tensor:
        """Return the tangent's outputs, (N, K)."""
        step = {name: weights[name] - value for name, value in self.at.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, when it first loads its derivatives
            found: Any = jvp(lambda w: self.whole.outputs(w, data), (self.at,), (step,))
        value, change = found
        return value + change

    def observe(self, outputs: Tensor, data: Data) -> None:
        """Sample the observed sites at these outputs."""
        self.whole.observe(outputs, data)
