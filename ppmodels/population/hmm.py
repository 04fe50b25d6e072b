"""Hidden Markov model of a population: a state that switches, and in each state every neuron fires at its own rate."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyro
from torch import Tensor

from ppmodels.base import Data, Theta, dims
from ppmodels.population import _emissions, hidden_chain
from ppmodels.population._chain_expected import Expected
from ppmodels.population._chain_trials import ChainTrials, chain_priors, maximise_chain, reordered, start_chain
from ppmodels.population._checks import check_choice, check_counts, check_positive


@dataclass(frozen=True)
class HiddenMarkovModel:
    r"""A hidden state that switches from bin to bin, and neurons independent given it; states are summed out.

    .. math:: z_1 \sim \pi,\; z_{t+1} \mid z_t = s \sim A_s,\;
        y_{tn} \mid z_t = s \sim \mathrm{Poisson}(b\, \lambda_{sn})

    with pi, A, lambda, b = initial, transition, rate, bin_size; or y ~ Bernoulli(rate), a rate a bin. States are
    in the order of their rates' sums.

    Latents:  initial (S,); transition (S, S), from row to column; rate (S, N), Hz.
    Observed: y (R, T, N), counts in trials of T bins; NaN where nothing was seen, with gaps=True.
    Source:   Rabiner (1989), Proc. IEEE 77; Zucchini and MacDonald (2009), Hidden Markov Models for Time Series.
    """

    neurons: int = 4
    states: int = 2
    bins: int = 5
    bin_size: float = 0.05  # s
    emission: Literal["poisson", "bernoulli"] = "poisson"
    gaps: bool = False
    rate: float = 20.0  # Hz, the prior's mean
    shape: float = 1.0  # of the rates' gamma prior
    concentration: float = 1.0
    stay: float = 4.0
    observed: ClassVar[tuple[str, ...]] = ("y",)
    row: ClassVar[str] = "trial"

    def __post_init__(self) -> None:
        check_positive(self, "neurons", "states", "bins", "bin_size", "rate", "shape", "concentration")
        check_choice(self, "emission", "poisson", "bernoulli")

    @classmethod
    def for_data(cls, y: Any, bin_size: float = 0.05, **fields: Any) -> "HiddenMarkovModel":
        """Return the model whose sizes and rate are those of counts y, (R, T, N), in bins of so many seconds."""
        return cls(**{**_emissions.describe(y, bin_size), **fields})

    def inputs(self, rows: int) -> dict[str, Tensor]:
        return {}

    def model(self, data: Data) -> None:
        axes = {"initial": ("state",), "transition": ("state", "next_state"), "rate": ("state", "neuron")}
        theta = {k: pyro.sample(k, prior, infer=dims(*axes[k])) for k, prior in self._priors().items()}
        emits = _emissions.of(self.emission, theta["rate"], self.bin_size, self.gaps)
        chain = ChainTrials(theta, emits, (self.bins, self.neurons), self.gaps)
        with data.plate():
            pyro.sample("y", chain, infer=dims("time", "neuron"))

    check = check_counts

    def start(self, data: Data) -> Theta:
        rate = _emissions.start(self.emission, data.observed["y"], self.states, self.bin_size)
        return self.relabel({**start_chain(self.states), "rate": rate})

    def e_step(self, theta: Theta, data: Data) -> tuple[Expected, Tensor]:
        q = Expected.of(self._logarithms(theta, data), theta)
        return q, q.log_likelihood.sum()

    def m_step(self, q: Expected, data: Data, prior: bool) -> Theta:
        priors = self._priors() if prior else None
        rate = _emissions.maximise(self.emission, q.state, data.observed["y"], self.bin_size, priors)
        return {**maximise_chain(q.state, q.moves, priors), "rate": rate}

    def bound(self, q: Expected, theta: Theta, data: Data) -> Tensor:
        return q.bound(*self._logarithms(theta, data))

    def relabel(self, draws: Theta) -> Theta:
        return reordered(draws, draws["rate"].sum(-1).argsort(-1))

    def state_probabilities(self, theta: Theta, data: Data) -> Tensor:  # (R, T, S)
        """Return p(z_t | y) at one value of the sites."""
        return hidden_chain.posterior(*self._logarithms(theta, data))[0]

    def most_probable_states(self, theta: Theta, data: Data) -> Tensor:
        """Return Viterbi's path of states, (R, T), at one value of the sites."""
        return hidden_chain.viterbi(*self._logarithms(theta, data))[0]

    def _logarithms(self, theta: Theta, data: Data) -> tuple[Tensor, Tensor, Tensor]:
        emits = _emissions.of(self.emission, theta["rate"], self.bin_size, self.gaps)
        chain = hidden_chain.logarithms(theta["initial"], theta["transition"])
        return chain[0], chain[1], emits.score(data.observed["y"])

    def _priors(self) -> dict[str, Any]:
        return {**chain_priors(self.states, self.stay, self.concentration), "rate": _emissions.prior(self)}
