"""Pareto-smoothed importance sampling: weights that a heavy tail does not ruin, and a number that says if it does."""

import math

import torch
from torch import Tensor

TRUSTED = 0.7  # k-hat above which importance weights, and the approximation they mend, are not to be trusted


def psis(log_ratios: Tensor, r_eff: float = 1.0) -> tuple[Tensor, float]:
    """Return smoothed, normalised log weights, (S,), and k-hat, of log p - log q, (S,), at draws from q.

    A ratio that is not a number, or minus infinity, is a weight of zero. k-hat is infinite when a ratio is,
    and where fewer than five draws are in the tail it is that too: nothing is known of it.

    Source: Vehtari, Simpson, Gelman, Yao and Gabry (2024), JMLR 25, algorithm 1.
    """
    ratios = log_ratios.detach().double().nan_to_num(-math.inf, math.inf, -math.inf)
    if not bool(ratios.isfinite().any()) or bool((ratios == math.inf).any()):
        best = (ratios == ratios.max()).double()
        return (best / best.sum()).log(), math.inf
    weights, draws = ratios - ratios.max(), len(ratios)
    tail = int(3 * math.sqrt(draws / r_eff)) if draws * r_eff > 225 else draws // 5
    order = weights.argsort()
    last = order[draws - tail :]
    cutoff = weights[order[draws - tail - 1]].exp()
    excess = weights[last].exp() - cutoff  # (T,), ascending
    if tail < 5:
        return torch.log_softmax(weights, 0), math.inf
    if not bool(excess[0] > 0):
        excess = excess.clamp(min=torch.finfo(excess.dtype).tiny)
    if float(excess[-1]) <= 1e-8:  # all weights are alike: the approximation is the density, up to rounding
        return torch.log_softmax(weights, 0), 0.0
    shape, scale = generalised_pareto(excess)
    if math.isfinite(shape):
        middle = torch.arange(0.5, tail, dtype=excess.dtype, device=excess.device) / tail
        weights[last] = (cutoff + quantile(middle, shape, scale)).log().clamp(max=0.0)
    return torch.log_softmax(weights, 0), shape


def generalised_pareto(excess: Tensor) -> tuple[float, float]:
    """Return shape and scale of a generalised Pareto distribution, from ascending excesses, (T,).

    The shape has a prior worth ten draws at one half.
    Source: Zhang and Stephens (2009), Technometrics 51; Vehtari et al. (2024), appendix C.
    """
    size = len(excess)
    grid = 30 + int(math.sqrt(size))
    steps = torch.arange(1, grid + 1, dtype=excess.dtype, device=excess.device) - 0.5
    quarter = excess[int(size / 4 + 0.5) - 1]
    theta = 1 / excess[-1] + (1 - (grid / steps).sqrt()) / (3 * quarter)  # (G,)
    shape = torch.log1p(-theta[:, None] * excess).mean(1)
    weight = torch.softmax(size * ((-theta / shape).log() - shape - 1), 0)
    weight = torch.where(weight >= 10 * torch.finfo(weight.dtype).eps, weight, 0.0)
    best = (theta * weight).sum() / weight.sum()
    found = float(torch.log1p(-best * excess).mean())
    return (size * found + 5) / (size + 10), -found / float(best)


def quantile(p: Tensor, shape: float, scale: float) -> Tensor:
    """Return the generalised Pareto distribution's quantiles at p."""
    if abs(shape) < 1e-12:
        return -scale * torch.log1p(-p)
    return scale * torch.expm1(-shape * torch.log1p(-p)) / shape


def verdict(khat: float) -> str:
    """Say what a k-hat means."""
    if khat <= TRUSTED:
        return f"k-hat {khat:.2f}: the approximation is close enough for its weights to mend it"
    return f"k-hat {khat:.2f} is above {TRUSTED}: the approximation is far from the posterior; sample with mcmc"
