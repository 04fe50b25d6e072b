"""How a Hopfield network gets its weights: prescribed, error-driven, or by forgetting what it was never told.

Patterns are (K, N), of -1 and 1 or of 0 and 1; the network returned has units of the same kind.
"""

import torch
from torch import Tensor

from ppmodels.memory.hopfield import Hopfield, Units


def hebb(patterns: Tensor, diagonal: bool = False) -> Hopfield:
    r"""Return :math:`W = \tfrac1N \sum_\mu x_\mu x_\mu^\top`; for bits, x - 1/2 takes the place of x / 2.

    diagonal: keep the units' couplings to themselves. Source: Hopfield (1982), PNAS 79.
    """
    x, units = _signs(patterns)
    return _network(x.mT @ x / x.shape[1], units, diagonal)


def pseudo_inverse(patterns: Tensor, diagonal: bool = False) -> Hopfield:
    r"""Return the projection onto the span of the patterns, :math:`W = X X^+`: up to N independent ones are fixed.

    Source: Personnaz, Guyon and Dreyfus (1985), J. Physique Lettres 46.
    """
    x, units = _signs(patterns)
    return _network(torch.linalg.pinv(x) @ x, units, diagonal)


def storkey(patterns: Tensor) -> Hopfield:
    r"""Return the weights of Storkey's local rule, one pattern after the other.

    .. math:: \Delta w_{ij} = \tfrac1N (x_i x_j - x_i h_{ji} - h_{ij} x_j),\quad
        h_{ij} = \textstyle\sum_{k \ne i, j} w_{ik} x_k

    Source: Storkey (1997), ICANN.
    """
    x, units = _signs(patterns)
    weights = x.new_zeros(x.shape[1], x.shape[1])
    for row in x:
        field = weights @ row - weights.diagonal() * row  # (N,)
        local = field[:, None] - weights * row  # h_ij, (N, N)
        weights = weights + (row[:, None] * row - row[:, None] * local.mT - local * row) / len(row)
    return _network(weights, units, False)


def perceptron(
    patterns: Tensor,
    network: Hopfield | None = None,
    margin: float = 0.0,
    symmetric: bool = False,
    epochs: int = 1000,
) -> Hopfield:
    r"""Return weights by which each unit, a perceptron, predicts its own bit of each pattern from the others.

    .. math:: \Delta w_{ij} = \tfrac1N x_i x_j \ \text{ where } x_i h_i \le \text{margin}

    Patterns come one at a time, until an epoch needs no change: up to K = 2 N random ones can be stored.
    network: learn on from this one. symmetric: add the transposed change too, so that there is an energy.

    Raises: ArithmeticError when `epochs` do not suffice, as when the patterns are not separable.
    Source: Gardner (1988), J. Phys. A 21; Diederich and Opper (1987), Phys. Rev. Lett. 58.
    """
    x, units = _signs(patterns)
    size = x.shape[1]  # weights are kept as N W: sums of whole numbers, in which a field of 0 is exactly 0
    before = Hopfield(x.new_zeros(size, size)) if network is None else network.as_signs()
    weights, bias = size * before.weights, size * before.bias
    errors = len(x)
    for _ in range(epochs):
        errors = 0
        for row in x:
            wrong = (row * (weights @ row + bias) <= size * margin).to(x)  # (N,)
            if wrong.any():
                errors += 1
                change = (wrong * row)[:, None] * row  # (N, N)
                weights += change + change.mT if symmetric else change
                weights.fill_diagonal_(0)
        if not errors:
            return _network(weights / size, units, False, before.bias)
    raise ArithmeticError(f"{errors} of {len(x)} patterns are still not stored after {epochs} epochs")


def pseudo_likelihood(patterns: Tensor, num_steps: int = 500, lr: float = 1.0) -> Hopfield:
    r"""Return weights that ascend the log pseudo-likelihood, the perceptron's rule with a soft threshold.

    .. math:: \ell = \sum_\mu \sum_i \log \sigma(2 x_i h_i),\qquad
        \partial \ell / \partial w_{ij} = \sum_\mu 2 x_i x_j\, \sigma(-2 x_i h_i)

    Where the patterns are separable it grows for ever, and the direction of W is what settles.

    Source: Besag (1975), The Statistician 24.
    """
    x, units = _signs(patterns)
    weights = x.new_zeros(x.shape[1], x.shape[1])
    for _ in range(num_steps):
        surprise = x * torch.sigmoid(-2 * x * (x @ weights.mT))  # (K, N)
        weights += 2 * lr * surprise.mT @ x / len(x)
        weights.fill_diagonal_(0)
    return _network(weights, units, False)


def unlearn(network: Hopfield, dreams: int, strength: float = 0.01, seed: int = 0, batch: int = 20) -> Hopfield:
    r"""Return the network after forgetting, a little, the attractors that it falls into from random states.

    .. math:: W \leftarrow W - \tfrac{\epsilon}{N} s^* s^{*\top}

    Spurious minima are what it dreams most; too many dreams wear the memories away as well.

    strength: epsilon. batch: dreams from the same weights. Source: Hopfield, Feinstein and Palmer (1983), Nature 304.
    """
    signs, generator = network.as_signs(), torch.Generator().manual_seed(seed)
    size = len(signs.weights)
    for start in range(0, dreams, batch):
        bits = torch.randint(2, (min(batch, dreams - start), size), generator=generator)
        state = signs.recall(2.0 * bits - 1).state
        weights = signs.weights - strength / size * state.mT @ state
        signs = Hopfield(weights.fill_diagonal_(0), signs.bias)
    return signs if network.units == "signs" else signs.as_bits()


def _signs(patterns: Tensor) -> tuple[Tensor, Units]:
    """Patterns as -1 and 1, and what they were."""
    x = torch.as_tensor(patterns)
    x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"patterns must be (K, N), at least one of each; they are {tuple(x.shape)}")
    if (x.abs() == 1).all():
        return x, "signs"
    if ((x == 0) | (x == 1)).all():
        return 2 * x - 1, "bits"
    raise ValueError("patterns must be of -1 and 1, or of 0 and 1, throughout")


def _network(weights: Tensor, units: Units, diagonal: bool, bias: Tensor | None = None) -> Hopfield:
    if not diagonal:
        weights.fill_diagonal_(0)
    network = Hopfield(weights, weights.new_zeros(len(weights)) if bias is None else bias)
    return network if units == "signs" else network.as_bits()
