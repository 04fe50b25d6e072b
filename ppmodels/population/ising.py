"""Pairwise maximum entropy (Ising model): which neurons fire together, and nothing beyond rates and pairs."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppmodels.base import Data, Theta, dims
from ppmodels.population._checks import check_choice, check_positive, check_words
from ppmodels.population._word_fit import WordMoments, law_of, pseudo
from ppmodels.population._word_trials import WordTrials
from ppmodels.population.maximum_entropy import LARGEST, PairwiseMaximumEntropy


@dataclass(frozen=True)
class Ising:
    r"""Words of spikes and silence with the least structure that has their rates and pairwise correlations.

    .. math:: h_i \sim N(m, a^2),\; J_{ij} \sim N(0, c^2),\;
        p(y_t) = \tfrac1Z \exp\big(\textstyle\sum_i h_i y_{ti} + \sum_{i<j} J_{ij} y_{ti} y_{tj}\big)

    with m, a, c = center, bias_scale, coupling_scale. Z is summed over all 2^N words up to N = 20; for more neurons
    likelihood="pseudo" takes every neuron's law given the others instead. Nothing is latent, so EM's M step is all
    of the fit: Newton's method.

    Latents:  bias (N,); coupling (P,), P = N (N - 1) / 2, pairs row by row.
    Observed: y (R, T, N), 0 or 1 in trials, or blocks, of T bins; bins are independent.
    Source:   Schneidman, Berry, Segev and Bialek (2006), Nature 440; Besag (1975), The Statistician 24.
    """

    neurons: int = 4
    bins: int = 5
    likelihood: Literal["exact", "pseudo"] = "exact"
    center: float = -1.0
    bias_scale: float = 1.5
    coupling_scale: float = 0.7
    observed: ClassVar[tuple[str, ...]] = ("y",)
    row: ClassVar[str] = "trial"

    def __post_init__(self) -> None:
        check_positive(self, "neurons", "bins", "bias_scale", "coupling_scale")
        check_choice(self, "likelihood", "exact", "pseudo")
        if self.likelihood == "exact" and not 2 <= self.neurons <= LARGEST:
            raise ValueError(f"an exact sum takes 2 to {LARGEST} neurons; {self.neurons} need likelihood='pseudo'")

    @classmethod
    def for_data(cls, y: Any, **fields: Any) -> "Ising":
        """Return the model of words y, (R, T, N): exact where it can be."""
        _, bins, neurons = torch.as_tensor(y).shape
        likelihood = "exact" if neurons <= LARGEST else "pseudo"
        return cls(**{"neurons": neurons, "bins": bins, "likelihood": likelihood, **fields})

    def inputs(self, rows: int) -> dict[str, Tensor]:
        return {}

    def model(self, data: Data) -> None:
        pairs = self.neurons * (self.neurons - 1) // 2
        bias = dist.Normal(torch.full((self.neurons,), self.center), self.bias_scale).to_event(1)
        coupling = dist.Normal(torch.zeros(pairs), self.coupling_scale).to_event(1)
        law = PairwiseMaximumEntropy(
            pyro.sample("bias", bias, infer=dims("neuron")), pyro.sample("coupling", coupling, infer=dims("pair"))
        )
        with data.plate():
            pyro.sample("y", WordTrials(law, self.bins, self.likelihood == "pseudo"), infer=dims("time", "neuron"))

    check = check_words

    def start(self, data: Data) -> Theta:
        return self._theta(WordMoments.of(data.observed["y"]).parameters)

    def e_step(self, theta: Theta, data: Data) -> tuple[WordMoments, Tensor]:
        x = torch.cat([theta["bias"], theta["coupling"]])
        told = WordMoments.of(data.observed["y"], x)
        return told, self.bound(told, theta, data)

    def m_step(self, q: WordMoments, data: Data, prior: bool) -> Theta:
        scale = torch.full_like(q.mean, self.coupling_scale)
        scale[: self.neurons] = self.bias_scale
        center = torch.zeros_like(scale)
        center[: self.neurons] = self.center
        climb = q.maximise if self.likelihood == "exact" else q.maximise_pseudo
        return self._theta(climb(scale**-2, center) if prior else climb())

    def bound(self, q: WordMoments, theta: Theta, data: Data) -> Tensor:
        x = torch.cat([theta["bias"], theta["coupling"]])
        return q.log_likelihood(x) if self.likelihood == "exact" else pseudo(q.words, x)

    def law(self, theta: Theta) -> PairwiseMaximumEntropy:
        """Return the distribution of words at one value of the sites: its entropy, moments and samples."""
        return law_of(torch.cat([theta["bias"], theta["coupling"]]), self.neurons)

    def _theta(self, x: Tensor) -> Theta:
        return {"bias": x[: self.neurons], "coupling": x[self.neurons :]}
