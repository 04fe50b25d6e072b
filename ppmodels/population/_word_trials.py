"""Trials of words that are independent from bin to bin, each trial one observation."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ppmodels.population._gapped import TrialDistribution
from ppmodels.population.maximum_entropy import LARGEST, PairwiseMaximumEntropy

SWEEPS = 100  # of Gibbs sampling for a word, where not all words can be summed


class WordTrials(TrialDistribution):
    """p(y) of trials (T, N); with `pseudo`, the product of every neuron's law given all the others in its bin."""

    def __init__(self, law: PairwiseMaximumEntropy, bins: int, pseudo: bool) -> None:
        super().__init__(bins, law.neurons, gaps=False)
        self.law, self.pseudo = law, pseudo

    def log_prob(self, value: Tensor) -> Tensor:
        if self.pseudo:
            field = self.law.bias + value @ self.law.matrix  # (R, T, N)
            return (value * field + logsigmoid(-field)).sum((-2, -1))
        pairs = value.mT @ value  # what a trial tells, (R, N, N): the parameters come after the data
        means = pairs.diagonal(dim1=-2, dim2=-1) @ self.law.bias
        couplings = 0.5 * (pairs * self.law.matrix).sum((-2, -1))
        return means + couplings - value.shape[-2] * self.law.log_partition()

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size((*sample_shape, *self.batch_shape, self.event_shape[0]))
        with torch.no_grad():
            if self.law.neurons <= LARGEST:
                found = self.law.sample(shape.numel())
            else:
                start = torch.bernoulli(torch.full((shape.numel(), self.law.neurons), 0.5))
                found = self.law.gibbs(start.to(self.law.bias), SWEEPS)
        return found.reshape(*shape, self.law.neurons)
