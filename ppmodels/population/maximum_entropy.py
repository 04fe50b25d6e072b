"""Pairwise maximum-entropy distributions over words of spikes and silence, s in {0, 1}^N: sums, samples, entropies."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

LARGEST = 20  # neurons of which all 2^N words are summed


@dataclass(frozen=True)
class PairwiseMaximumEntropy:
    r"""p(s) proportional to :math:`\exp(\sum_i h_i s_i + \sum_{i<j} J_{ij} s_i s_j)`.

    bias: h (N,). coupling: J of each pair i < j, row by row, (P,).
    """

    bias: Tensor
    coupling: Tensor

    @property
    def neurons(self) -> int:
        return self.bias.shape[-1]

    @property
    def matrix(self) -> Tensor:
        """J as a symmetric matrix (N, N), with a diagonal of zero."""
        i, j = torch.triu_indices(self.neurons, self.neurons, 1, device=self.bias.device)
        upper = self.coupling.new_zeros(self.neurons, self.neurons).index_put((i, j), self.coupling)
        return upper + upper.mT

    def score(self, word: Tensor) -> Tensor:
        """Return the exponent at words (..., N)."""
        return word @ self.bias + 0.5 * ((word @ self.matrix) * word).sum(-1)

    def exponents(self) -> Tensor:
        """Return the exponents of all words, (2^N,): neuron i is bit i. One neuron at a time, in O(2^N N).

        Raises: ValueError when there are too many.
        """
        if self.neurons > LARGEST:
            raise ValueError(f"2^{self.neurons} words cannot be summed; sample them, or take likelihood='pseudo'")
        states, matrix = words(self.neurons).to(self.bias), self.matrix
        found = self.bias.new_zeros(1)
        for k in range(self.neurons):
            field = self.bias[k] + states[: 2**k, :k] @ matrix[:k, k]
            found = torch.cat([found, found + field])
        return found

    def log_partition(self) -> Tensor:
        """Return log Z, ()."""
        return self.exponents().logsumexp(-1)

    def moments(self) -> Tensor:
        """Return E s_i, then E s_i s_j of each pair, (N + P,): the gradient of log Z."""
        with torch.enable_grad():
            bias, coupling = (part.detach().requires_grad_() for part in (self.bias, self.coupling))
            value = PairwiseMaximumEntropy(bias, coupling).log_partition()
            return torch.cat(torch.autograd.grad(value, [bias, coupling]))

    def entropy(self) -> Tensor:
        """Return the entropy in nats, ()."""
        exponents = self.exponents()
        log_p = exponents - exponents.logsumexp(-1)
        return -(log_p.exp() * log_p).sum()

    def sample(self, number: int) -> Tensor:
        """Return independent words, (number, N), from the table of all of them."""
        weight = self.exponents().softmax(-1)
        return words(self.neurons).to(self.bias)[torch.multinomial(weight, number, replacement=True)]

    def gibbs(self, word: Tensor, sweeps: int) -> Tensor:
        """Return chains (C, N) after so many sweeps of Gibbs sampling, all chains side by side."""
        word, matrix = word.clone(), self.matrix
        for uniform in torch.rand(sweeps, self.neurons, len(word), dtype=word.dtype, device=word.device):
            for i in range(self.neurons):
                field = self.bias[i] + word @ matrix[i]
                word[:, i] = (uniform[i] < field.sigmoid()).to(word)
        return word

    def log_partition_by_annealing(self, chains: int = 500, steps: int = 500) -> tuple[float, float]:
        """Return log Z and its standard error by annealed importance sampling from J = 0, one sweep a step.

        Source: Neal (2001), Statistics and Computing 11.
        """
        start = PairwiseMaximumEntropy(self.bias, torch.zeros_like(self.coupling))
        word = torch.bernoulli(self.bias.sigmoid().expand(chains, -1))
        weight = torch.zeros(chains, dtype=word.dtype, device=word.device)
        for step in range(1, steps + 1):
            pair = 0.5 * ((word @ self.matrix) * word).sum(-1)
            weight = weight + pair / steps
            word = PairwiseMaximumEntropy(self.bias, self.coupling * (step / steps)).gibbs(word, 1)
        base = torch.nn.functional.softplus(start.bias).sum()
        mean = weight.logsumexp(-1) - torch.tensor(float(chains)).log()
        error = (weight - mean).exp().std() / chains**0.5
        return float(base + mean), float(error)


def features(word: Tensor) -> Tensor:
    """Return s, then s_i s_j of each pair i < j, (..., N + P)."""
    i, j = torch.triu_indices(word.shape[-1], word.shape[-1], 1, device=word.device)
    return torch.cat([word, word[..., i] * word[..., j]], -1)


@lru_cache(maxsize=4)
def words(neurons: int) -> Tensor:
    """Return all words, (2^N, N), in float64: neuron i is bit i of the row's number."""
    return (torch.arange(2**neurons)[:, None] >> torch.arange(neurons) & 1).double()
