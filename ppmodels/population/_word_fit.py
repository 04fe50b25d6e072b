"""The pairwise maximum-entropy distribution of the highest likelihood, exactly, by pseudolikelihood, or by sampling."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ppmodels.population.maximum_entropy import PairwiseMaximumEntropy, features

STEPS = 500
MEMORY = 10  # steps that L-BFGS remembers
GAIN = 1e-17  # nats a word still to be had, at which the climb ends
CLOSE = 1e-11  # nats, so few that rounding hides whether a step gains them; the step is then Newton's, and right
BLOCK = 10_000  # words at once


@dataclass(frozen=True)
class WordMoments:
    """What words tell: mean (N + P,) and covariance (N + P, N + P) of their features, and their number.

    words (B, N) are kept for the pseudolikelihood. parameters (N + P,): h and J to go on from.
    """

    mean: Tensor
    cov: Tensor
    number: int
    words: Tensor
    parameters: Tensor

    @classmethod
    def of(cls, y: Tensor, parameters: Tensor | None = None) -> "WordMoments":
        """y: words (..., N) of 0 and 1."""
        flat = y.reshape(-1, y.shape[-1])
        size = flat.shape[1] * (flat.shape[1] + 1) // 2
        mean, square = flat.new_zeros(size), flat.new_zeros(size, size)
        for block in flat.split(BLOCK):
            told = features(block)
            mean, square = mean + told.sum(0), square + told.mT @ told
        mean, square = mean / len(flat), square / len(flat)
        start = independent(mean[: flat.shape[1]], size) if parameters is None else parameters
        return cls(mean, square - torch.outer(mean, mean), len(flat), flat, start)

    def log_likelihood(self, parameters: Tensor) -> Tensor:
        """Return log p(words), ()."""
        return self.number * (self.mean @ parameters - law_of(parameters, self.words.shape[1]).log_partition())

    def maximise(self, precision: Tensor | float = 0.0, center: Tensor | float = 0.0) -> Tensor:
        """Return h and J (N + P,) of the highest log likelihood, less precision (x - center)^2 / 2.

        L-BFGS with the data's covariance of features for the first Hessian: where model and data agree, at the
        top, it is the Hessian but for noise, and it is made once. Pairs that never fire together, whose variance
        it lacks, have the model's; their J goes down by one a step, to where nothing is to be gained.
        """
        penalty = (torch.as_tensor(precision).to(self.mean) / self.number).expand(len(self.mean))
        x, pairs = self.parameters, deque[tuple[Tensor, Tensor]](maxlen=MEMORY)
        value, grad, mean = self._climbed(x, penalty, center)
        for _ in range(STEPS):
            missing = (mean * (1 - mean) - self.cov.diagonal()).clamp_min(0)
            root = torch.linalg.cholesky(self.cov + torch.diag(missing + penalty + 1e-12))
            step = _direction(grad, pairs, root)
            gain, size, there, found = float(grad @ step), 1.0, x, (value, grad, mean)
            if gain < GAIN:
                break
            while size > 1e-10:
                there = x + size * step
                found = self._climbed(there, penalty, center)
                if gain < CLOSE or float(found[0]) >= float(value) + 1e-4 * size * gain:
                    break
                size /= 2
            if float((there - x) @ (grad - found[1])) > 0:
                pairs.append((there - x, grad - found[1]))
            x, (value, grad, mean) = there, found
        return x

    def _climbed(self, x: Tensor, penalty: Tensor, center: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        """The objective a word, its gradient, and the model's mean features."""
        away = x - center
        with torch.enable_grad():
            free = x.detach().requires_grad_()
            value = law_of(free, self.words.shape[1]).log_partition()
            (mean,) = torch.autograd.grad(value, free)
        value = self.mean @ x - value.detach() - 0.5 * (penalty * away.square()).sum()
        return value, self.mean - mean - penalty * away, mean

    def maximise_pseudo(self, precision: Tensor | float = 0.0, center: Tensor | float = 0.0) -> Tensor:
        """Return h and J of the highest pseudolikelihood, less the penalty, by L-BFGS in whitened coordinates."""
        penalty = torch.as_tensor(precision).to(self.mean).expand(len(self.mean)) / self.number
        ridge = 1e-9 + 0.5 / self.number
        root = torch.linalg.cholesky(self.cov + torch.diag(penalty + ridge * (1 + self.cov.diagonal())))
        free = (root.mT @ self.parameters).detach().clone().requires_grad_()
        climber = torch.optim.LBFGS(
            [free], max_iter=STEPS, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            climber.zero_grad()
            x = torch.linalg.solve_triangular(root.mT, free[:, None], upper=True)[:, 0]
            value = 0.5 * (penalty * (x - center).square()).sum() - pseudo(self.words, x) / self.number
            value.backward()
            return value

        with torch.enable_grad():
            climber.step(loss)
        return torch.linalg.solve_triangular(root.mT, free.detach()[:, None], upper=True)[:, 0]

    def maximise_by_sampling(self, chains: int = 2000, steps: int = 200, sweeps: int = 2) -> Tensor:
        """Return h and J whose sampled moments are those of the words: persistent chains, averaged over the last half.

        Source: Tieleman (2008), ICML 25; Polyak and Juditsky (1992) for the average.
        """
        neurons, floor = self.words.shape[1], 1 / self.number
        root = torch.linalg.cholesky(self.cov + torch.diag(floor * (1 + self.cov.diagonal())))
        x = independent(self.mean[:neurons], len(self.mean))
        chain = self.words[torch.randint(self.number, (chains,))]
        total, kept = torch.zeros_like(x), 0
        for step in range(steps):
            chain = law_of(x, neurons).gibbs(chain, sweeps)
            grad = self.mean - features(chain).mean(0)
            x = x + torch.cholesky_solve(grad[:, None], root)[:, 0] * min(0.3, 10 / (step + 1))
            if 2 * step >= steps:
                total, kept = total + x, kept + 1
        return total / kept


def law_of(parameters: Tensor, neurons: int) -> PairwiseMaximumEntropy:
    """Return the distribution of h and J in one vector, (N + P,)."""
    return PairwiseMaximumEntropy(parameters[:neurons], parameters[neurons:])


def independent(mean: Tensor, size: int) -> Tensor:
    """Return h and J = 0, (size,), of neurons that fire alone with these probabilities, (N,)."""
    rate = mean.clamp(1e-6, 1 - 1e-6)
    return torch.cat([rate.logit(), mean.new_zeros(size - len(mean))])


def pseudo(words: Tensor, parameters: Tensor) -> Tensor:
    """Return the log pseudolikelihood of words (B, N), ()."""
    law = law_of(parameters, words.shape[1])
    field = law.bias + words @ law.matrix
    return (words * field + torch.nn.functional.logsigmoid(-field)).sum()


def _direction(grad: Tensor, pairs: Sequence[tuple[Tensor, Tensor]], root: Tensor) -> Tensor:
    """Return where to go uphill: the two-loop recursion, around the inverse of root root' (Nocedal and Wright, 7.4)."""
    shares: list[Tensor] = []
    for moved, turned in reversed(pairs):
        shares.append((moved @ grad) / (moved @ turned))
        grad = grad - shares[-1] * turned
    step = torch.cholesky_solve(grad[:, None], root)[:, 0]
    for (moved, turned), share in zip(pairs, reversed(shares), strict=True):
        step = step + moved * (share - (turned @ step) / (moved @ turned))
    return step
