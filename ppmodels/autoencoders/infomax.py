"""Infomax: a code is worth what it tells of its row; what a decoder can show of that, and all there is, on tables."""

import torch
from torch import Tensor


def mutual_information(prior: Tensor, channel: Tensor) -> Tensor:
    """Return I(X; Z), nats, (), of p(x), (X,), and p(z | x), (X, Z): at most H(X)."""
    joint = prior[:, None] * channel
    return entropy(prior) + entropy(joint.sum(0)) - entropy(joint.flatten())


def infomax_bound(prior: Tensor, channel: Tensor, decoder: Tensor) -> Tensor:
    r"""Return what a decoder q(x | z), (Z, X), shows of I(X; Z), nats, ().

    .. math:: H(X) + E_{p(x, z)} \log q(x \mid z) \le I(X; Z)

    H(X) is the rows' own, so that to raise it is to raise the mean of log q(x_i | z) over draws of z given x_i.

    Source: Linsker (1988); Barber and Agakov (2003), equation 3.
    """
    joint = prior[:, None] * channel  # (X, Z)
    log_q = torch.where(joint > 0, decoder.mT.log(), 0.0)
    return entropy(prior) + (joint * log_q).sum()


def best_decoder(prior: Tensor, channel: Tensor) -> Tensor:
    """Return p(x | z), (Z, X), at which the bound is the information; a z that never comes tells the prior."""
    joint = prior[:, None] * channel
    total = joint.sum(0)[:, None]
    return torch.where(total > 0, joint.mT / total.clamp(min=1e-300), prior)


def entropy(p: Tensor) -> Tensor:
    """Return the entropy of a table, nats, ()."""
    return torch.special.entr(p).sum()
