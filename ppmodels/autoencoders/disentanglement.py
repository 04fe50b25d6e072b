"""Does each latent tell one cause? Scores of a code against the factors that made the data."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def mutual_information_gap(z: Tensor, factors: Tensor, bins: int = 20) -> float:
    """Return the mean over factors of (best - second latent's information) / entropy: 0 to 1.

    z: (N, K), K > 1, cut into `bins` of equal counts. factors: whole numbers (N, F).

    Source: Chen et al. (2018), arXiv:1802.04942, equation 6.
    """
    if z.shape[1] < 2:
        raise ValueError("a gap needs at least two latents")
    gaps = []
    for factor in factors.T:
        own = _entropy(factor)
        if own == 0:
            raise ValueError("a factor that is the same in every row has no information to find")
        told = torch.stack([_information(_ranked(column, bins), factor) for column in z.T]).sort(descending=True)[0]
        gaps.append((told[0] - told[1]) / own)
    return float(torch.stack(gaps).mean())


def beta_vae_score(
    pairs: Tensor, shared: Tensor, *, share_to_learn: float = 0.5, num_steps: int = 100
) -> float:  # fmt: skip
    """Return how often a linear classifier tells which factor two rows share, from how near their codes are.

    pairs: mean over pairs of rows of |z - z'| a coordinate, (M, K), each of pairs that share a factor's value.
    shared: the number of that factor, (M,). The first rows teach, the others are counted.

    Source: Higgins et al. (2017), section 3.
    """
    known = int(share_to_learn * len(pairs))
    x = (pairs - pairs[:known].mean(0)) / pairs[:known].std(0).clamp(min=1e-8)
    weight = torch.zeros(x.shape[1] + 1, int(shared.max()) + 1, dtype=x.dtype, requires_grad=True)
    x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    search = torch.optim.LBFGS([weight], max_iter=num_steps, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        value = cross_entropy(x[:known] @ weight, shared[:known]) + 1e-4 * weight.square().sum()
        value.backward()
        return value

    search.step(loss)
    return float(((x[known:] @ weight).argmax(1) == shared[known:]).double().mean())


def _ranked(column: Tensor, bins: int) -> Tensor:
    rank = column.argsort().argsort()
    return rank * bins // len(column)


def _information(a: Tensor, b: Tensor) -> Tensor:
    together = a * (b.max() + 1) + b
    return _entropy(a) + _entropy(b) - _entropy(together)


def _entropy(values: Tensor) -> Tensor:
    share = torch.unique(values, return_counts=True)[1] / len(values)
    return torch.special.entr(share).sum()
