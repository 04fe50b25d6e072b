"""GLM-HMM: what neurons do about a stimulus depends on a hidden state that switches."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppmodels.base import Data, Theta, dims
from ppmodels.population import _emissions, _regressions, hidden_chain
from ppmodels.population._chain_expected import Expected
from ppmodels.population._chain_trials import ChainTrials, chain_priors, maximise_chain, reordered, start_chain
from ppmodels.population._checks import check_choice, check_counts, check_positive


@dataclass(frozen=True)
class RegressionHiddenMarkovModel:
    r"""A hidden state that switches from bin to bin, and in each state a GLM of its own; states are summed out.

    .. math:: z_1 \sim \pi,\; z_{t+1} \mid z_t = s \sim A_s,\; W_s \sim N(0, c^2),\;
        y_{tn} \mid z_t = s \sim \mathrm{Poisson}(b\, e^{w_{sn}^\top \tilde{x}_t})

    or Bernoulli(logistic(w'x~)), with pi, A, W, b, c = initial, transition, weights, bin_size, spread, and x~ the
    features after a 1. States are in the order of neuron 0's constants.

    Latents:  initial (S,); transition (S, S), from row to column; weights (S, N, Q), log Hz or log odds, Q = F + 1.
    Given:    x (R, T, F), features of every bin, the stimulus or spikes before.
    Observed: y (R, T, N), counts in trials of T bins; NaN where nothing was seen, with gaps=True.
    Source:   Calhoun, Pillow and Murthy (2019), Nature Neuroscience 22; Ashwood et al. (2022), same 25.
    """

    neurons: int = 3
    states: int = 2
    features: int = 1
    bins: int = 5
    bin_size: float = 0.05  # s
    emission: Literal["poisson", "bernoulli"] = "poisson"
    gaps: bool = False
    rate: float = 20.0  # Hz, about which the constants are
    spread: float = 1.0
    concentration: float = 1.0
    stay: float = 4.0  # pseudo-times that a state is kept
    observed: ClassVar[tuple[str, ...]] = ("y",)
    row: ClassVar[str] = "trial"

    def __post_init__(self) -> None:
        check_positive(self, "neurons", "states", "bins", "bin_size", "rate", "spread", "concentration")
        check_choice(self, "emission", "poisson", "bernoulli")

    @classmethod
    def for_data(cls, y: Any, x: Any, bin_size: float = 0.05, **fields: Any) -> "RegressionHiddenMarkovModel":
        """Return the model whose sizes and rate are those of y, (R, T, N), and x, (R, T, F)."""
        return cls(**{**_emissions.describe(y, bin_size), "features": x.shape[2], **fields})

    def inputs(self, rows: int) -> dict[str, Tensor]:
        return {"x": torch.randn(rows, self.bins, self.features)}

    def model(self, data: Data) -> None:
        axes = {"initial": ["state"], "transition": ["state", "next_state"], "weights": ["state", "neuron", "feature"]}
        theta = {k: pyro.sample(k, prior, infer=dims(*axes[k])) for k, prior in self._priors().items()}
        with data.plate():
            chain = ChainTrials(theta, self._emits(theta, data), (self.bins, self.neurons), self.gaps)
            pyro.sample("y", chain, infer=dims("time", "neuron"))

    check = check_counts

    def start(self, data: Data) -> Theta:
        return self.relabel({**start_chain(self.states), "weights": _regressions.start(self, data.observed["y"])})

    def e_step(self, theta: Theta, data: Data) -> tuple[Expected, Tensor]:
        q = Expected.of(self._logarithms(theta, data), theta)
        return q, q.log_likelihood.sum()

    def m_step(self, q: Expected, data: Data, prior: bool) -> Theta:
        priors = self._priors() if prior else None
        weights = self._emits(q.theta, data).maximise(q.state, data.observed["y"], priors)
        return {**maximise_chain(q.state, q.moves, priors), "weights": weights}

    def bound(self, q: Expected, theta: Theta, data: Data) -> Tensor:
        return q.bound(*self._logarithms(theta, data))

    def relabel(self, draws: Theta) -> Theta:
        return reordered(draws, draws["weights"][..., 0, 0].argsort(-1))

    def state_probabilities(self, theta: Theta, data: Data) -> Tensor:  # (R, T, S)
        """Return p(z_t | y) at one value of the sites."""
        return hidden_chain.posterior(*self._logarithms(theta, data))[0]

    def _logarithms(self, theta: Theta, data: Data) -> tuple[Tensor, Tensor, Tensor]:
        chain = hidden_chain.logarithms(theta["initial"], theta["transition"])
        return chain[0], chain[1], self._emits(theta, data).score(data.observed["y"])

    def _emits(self, theta: Theta, data: Data) -> Any:
        return _regressions.Regressions(theta["weights"], data.given["x"], self.emission, self.bin_size, self.gaps)

    def _priors(self) -> dict[str, Any]:
        chain = chain_priors(self.states, self.stay, self.concentration)
        return {**chain, "weights": dist.Normal(_regressions.center(self), self.spread).to_event(3)}
