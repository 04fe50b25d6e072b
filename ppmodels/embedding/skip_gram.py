"""Bayesian skip-gram: word vectors with a posterior, from pairs of a word and a neighbour."""

import math
from dataclasses import dataclass
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ppmodels.base import Data, dims


@dataclass(frozen=True)
class SkipGram:
    r"""Every centre word predicts its neighbours by a softmax over all words, with a prior on both vectors.

    .. math:: v_{wd}, u_{wd} \sim N(0, s^2),\; p(c_n = o \mid w_n = i) \propto \exp u_o^\top v_i

    with s = scale. Only products count: v and u may be turned together, so a chain's vectors need not agree with
    another's, while `predictive` and `cosines` do.

    Latents:  v (W, D), of a word as centre; u (W, D), of a word as neighbour.
    Given:    centre (N,), places in the vocabulary from 0 to W - 1.
    Observed: context (N,), likewise.
    Source:   Mikolov et al. (2013), arXiv:1310.4546, equation 2; Barkan (2017), AAAI, for the prior.
    """

    words: int = 6
    dim: int = 2
    scale: float = 1.0
    observed: ClassVar[tuple[str, ...]] = ("context",)

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.words < 2 or self.dim < 1:
            raise ValueError(f"words must be at least 2 and dim 1; they are {self.words} and {self.dim}")
        if not 0 < self.scale < math.inf:
            raise ValueError(f"scale must be positive and finite; it is {self.scale}")

    def inputs(self, rows: int) -> dict[str, Tensor]:
        """Every word in turn."""
        return {"centre": torch.arange(rows) % self.words}

    def model(self, data: Data) -> None:
        centre = data.given["centre"].long()
        prior = dist.Normal(torch.zeros(self.dim), self.scale).to_event(1)
        with pyro.plate("words", self.words, dim=-1):
            v = pyro.sample("v", prior, infer=dims("column"))
            u = pyro.sample("u", prior, infer=dims("column"))
        score = v @ u.mT  # (W, W)
        with data.plate():
            pyro.sample("context", dist.Categorical(logits=score[centre]))

    def predictive(self, v: Tensor, u: Tensor) -> Tensor:
        """Return p(context | centre) for each draw of v and u (..., W, D), (..., W, W)."""
        return (v @ u.mT).softmax(-1)

    def cosines(self, v: Tensor) -> Tensor:
        """Return the cosine of each two words for each draw of v (..., W, D), (..., W, W): how sure a likeness is."""
        unit = normalize(v, dim=-1)
        return unit @ unit.mT
