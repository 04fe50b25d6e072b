"""Forward KL: the normal with the posterior's own mean and covariance, by adaptive importance sampling."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from inference.psis import psis

ENOUGH = 1e4  # effective draws: means are then known to a hundredth of a posterior sd
FREEDOM = 5.0  # of Student's t, from which draws are made: tails as a posterior may have them
SHARE = 1000  # draws a round
ROUNDS = 50  # at most


@dataclass
class Moments:
    """Mean (dim,), and lower triangular root of the covariance, (dim, dim); khat and effective size of the draws."""

    loc: Tensor
    root: Tensor
    khat: float = math.inf
    effective: float = 0.0
    bounds: list[float] = field(default_factory=list)


def match(
    log_prob: Callable[[Tensor], Tensor], loc: Tensor, scale: Tensor, *, num_rounds: int, diagonal: bool = False
) -> Moments:
    r"""Return the normal that minimises KL(p || q), whose moments are p's.

    .. math:: E_q[T(x)] = E_p[T(x)], \quad T(x) = (x, x x^\top)

    Draws come from Student's t at every place that the moments had so far, the first being loc and scale, (R, dim)
    each, as one mixture whose density weighs all of them; so a mode that a start found is never forgotten.
    diagonal: coordinates independent, which keeps means and variances.
    Source: Bishop (2006), section 10.7; Cornuet et al. (2012), Scandinavian J. Statistics 39, for adaptive draws.
    """
    proposals = [(mean, sd.diag()) for mean, sd in zip(loc, scale, strict=True)]
    x, log_p = loc.new_zeros(0, loc.shape[1]), loc.new_zeros(0)
    found = Moments(*proposals[0])
    while len(found.bounds) < num_rounds and not (found.effective >= ENOUGH and len(found.bounds) > 2):
        new = proposals if len(proposals) == len(loc) else proposals[-1:]
        drawn = torch.cat([_draw(*each, SHARE // len(new)) for each in new])
        x, log_p = torch.cat([x, drawn]), torch.cat([log_p, log_prob(drawn)])
        table = torch.stack([_log_density(x, *each) for each in proposals])  # (J, S)
        count = torch.tensor([SHARE // len(loc)] * len(loc) + [SHARE] * (len(proposals) - len(loc))).to(x)
        log_ratio = log_p - ((count / count.sum()).log()[:, None] + table).logsumexp(0)
        log_weight, khat = psis(torch.where(log_ratio.isnan(), -math.inf, log_ratio))
        weight = log_weight.softmax(0).to(x)
        mean = weight @ x
        spread = ((x - mean) * weight[:, None]).mT @ (x - mean)
        spread = spread.diagonal().diag() if diagonal else spread
        root, failed = torch.linalg.cholesky_ex(spread)
        if failed:  # one draw weighs all: look wider
            mean, root = proposals[-1][0], 1.5 * proposals[-1][1]
        evidence = float(log_ratio[log_ratio.isfinite()].logsumexp(0)) - math.log(len(x))
        found = Moments(mean, root, khat, float(1 / weight.square().sum()), [*found.bounds, evidence])
        proposals.append((mean, root))
    return found


def _draw(loc: Tensor, root: Tensor, number: int) -> Tensor:
    """Draws of Student's t, (number, dim)."""
    z = torch.randn(number, len(loc), dtype=loc.dtype, device=loc.device)
    chi = torch.distributions.Chi2(loc.new_tensor(FREEDOM)).sample((number, 1)) / FREEDOM
    return loc + (z / chi.sqrt()) @ root.mT


def _log_density(x: Tensor, loc: Tensor, root: Tensor) -> Tensor:
    """Log density of Student's t, (S,)."""
    dim = len(loc)
    white = torch.linalg.solve_triangular(root, (x - loc).mT, upper=False)
    constant = math.lgamma((FREEDOM + dim) / 2) - math.lgamma(FREEDOM / 2) - dim / 2 * math.log(FREEDOM * math.pi)
    tail = (FREEDOM + dim) / 2 * (white.square().sum(0) / FREEDOM).log1p()
    return constant - root.diagonal().log().sum() - tail
