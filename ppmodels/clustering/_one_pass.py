"""A mixture's expected sufficient statistics in one pass: memberships exist for a chunk of rows at a time.

A chunk lies with its rows along the last axis, so that every sum over components or columns runs along rows in memory.
"""

import torch
from torch import Tensor

from ppmodels.clustering._gaussian import log_constant
from ppmodels.clustering._statistics import Statistics

CHUNK = 2**18  # numbers of a chunk's largest temporary
WIDEST = 64  # columns up to which products of pairs are the faster way
CANCELS = 1e8  # squared sds from the origin above which differences of squares lose digits that matter


def expected(
    x: Tensor, log_weights: Tensor, loc: Tensor, factor: Tensor, row_weight: Tensor | None = None
) -> tuple[Statistics, Tensor]:
    """Return the statistics under p(z | x, theta), and the log likelihood, (), both in float64.

    x (N, D), log_weights (K,), loc (K, D), factor: W (K, D, D), or (1, D, D) when tied, or its diagonal (K, D).
    row_weight: how often each row counts, (N,).
    """
    log_weights, loc, factor = log_weights.double(), loc.double(), factor.double()
    origin = log_weights.softmax(0) @ loc  # (D,): near the rows' mean
    arguments = x, origin, log_weights, loc - origin, factor, row_weight
    if factor.ndim == 3 and len(factor) > 1 and x.shape[1] > WIDEST:
        return _whitened(*arguments)
    return _quadratic(*arguments) or _whitened(*arguments)


def _quadratic(
    x: Tensor, origin: Tensor, log_weights: Tensor, loc: Tensor, factor: Tensor, weight: Tensor | None
) -> tuple[Statistics, Tensor] | None:
    """Two matrix products a chunk: parameters with features of the rows, and memberships with the same features.

    When tied, what is quadratic in a row is the same for all components, and is left to one product for all.
    None when some row lies so many sds from the origin that its square swallows the others' distances.
    """
    dim, tied = loc.shape[1], len(factor) == 1 and factor.ndim == 3
    natural = _natural(log_weights, loc, factor)  # (K, P)
    total, log_likelihood = torch.zeros_like(natural), natural.new_zeros(())
    pooled, reach, size = natural.new_zeros(dim, dim), natural.new_zeros(dim), max(32, CHUNK // natural.shape[1])
    buffer = natural.new_empty(natural.shape[1], min(size, len(x)))
    for start in range(0, len(x), size):
        rows = x[start : start + size]
        w = None if weight is None else weight[start : start + size].double()
        features = _features(rows, origin, buffer[:, : len(rows)], factor.ndim == 2)
        table = natural @ features  # (K, n)
        score, y = _normalise(table), features[1 : 1 + dim]
        reach = torch.maximum(reach, y.abs().amax(1))
        if tied:
            score -= (factor[0] @ y).square_().sum(0).mul_(0.5)
            pooled.addmm_(y if w is None else y * w, y.mT)
        if w is not None:
            score, table = score * w, table.mul_(w)
        log_likelihood += score.sum()
        total.addmm_(table, features.mT)
    sds = factor * reach if factor.ndim == 2 else factor.abs() @ reach  # (K, D)
    if len(x) and float(sds.square().sum(-1).amax()) > CANCELS:
        return None
    return _from_sums(total, pooled if tied else None, origin, factor.ndim == 2), log_likelihood


def _natural(log_weights: Tensor, loc: Tensor, factor: Tensor) -> Tensor:
    """What a row's features are multiplied by, (K, P): its log joint densities, or tied, what differs in them."""
    if factor.ndim == 2:
        precision = factor.square()  # (K, D)
        linear, pairs = precision * loc, -precision / 2
    else:
        precision = factor.mT @ factor  # (K, D, D), or (1, D, D)
        linear, dim = (precision @ loc[..., None])[..., 0], loc.shape[1]
        i, j = torch.triu_indices(dim, dim, device=loc.device)
        pairs = torch.where(i == j, -0.5, -1.0) * precision[:, i, j] if len(factor) == len(loc) > 1 else loc[:, :0]
    constant = log_weights + log_constant(factor) - (linear * loc).sum(-1) / 2
    return torch.cat([constant[:, None], linear, pairs], -1)


def _features(rows: Tensor, origin: Tensor, out: Tensor, diagonal: bool) -> Tensor:
    """One, the row from the origin, and its squares or products of pairs as far as `out` has room, (P, n)."""
    dim = rows.shape[1]
    out[0] = 1
    y, place = out[1 : 1 + dim], 1 + dim
    y.copy_(rows.mT).sub_(origin[:, None])
    if diagonal:
        torch.mul(y, y, out=out[place:])
    elif len(out) > place:
        for i in range(dim):
            torch.mul(y[i:], y[i], out=out[place : place + dim - i])
            place += dim - i
    return out


def _from_sums(total: Tensor, pooled: Tensor | None, origin: Tensor, diagonal: bool) -> Statistics:
    """Statistics from sums of features, (K, P), and tied, from the scatter of all rows about the origin."""
    count, dim = total[:, 0], len(origin)
    mean = torch.where(count[:, None] > 0, total[:, 1 : 1 + dim] / count[:, None], 0.0)  # from the origin
    if diagonal:
        scatter = (total[:, 1 + dim :] - count[:, None] * mean.square()).clamp(min=0)
    elif pooled is not None:
        scatter = (pooled - (mean * count[:, None]).mT @ mean).expand(len(count), -1, -1) / len(count)
    else:
        i, j = torch.triu_indices(dim, dim, device=total.device)
        scatter = total.new_zeros(len(count), dim, dim)
        scatter[:, i, j] = scatter[:, j, i] = total[:, 1 + dim :]
        scatter = scatter - count[:, None, None] * mean[:, :, None] * mean[:, None]
    return Statistics(count, mean + origin, scatter, tied=pooled is not None)


def _whitened(
    x: Tensor, origin: Tensor, log_weights: Tensor, loc: Tensor, factor: Tensor, weight: Tensor | None
) -> tuple[Statistics, Tensor]:
    """Rows seen from each component, in its sds: digits survive any distance, and wide products are fast."""
    constant = (log_weights + log_constant(factor))[:, None]
    count, first = torch.zeros_like(log_weights), torch.zeros_like(loc)  # (K,), (K, D)
    second = torch.zeros_like(loc) if factor.ndim == 2 else loc.new_zeros(*loc.shape, loc.shape[1])
    log_likelihood, size = loc.new_zeros(()), max(32, CHUNK // max(1, loc.numel()))
    for start in range(0, len(x), size):
        y = _white_rows(x[start : start + size].double() - origin, loc, factor)  # (K, D, n)
        table = y.square().sum(1).mul_(-0.5).add_(constant)  # (K, n)
        score = _normalise(table)
        if weight is not None:
            w = weight[start : start + size].double()
            score, table = score * w, table.mul_(w)
        log_likelihood += score.sum()
        count += table.sum(-1)
        pulled = y * table[:, None]
        first += pulled.sum(-1)
        second += pulled.mul_(y).sum(-1) if factor.ndim == 2 else pulled @ y.mT
    return _from_white(count, first, second, loc + origin, factor), log_likelihood


def _white_rows(rows: Tensor, loc: Tensor, factor: Tensor) -> Tensor:
    """W_k (x_n - loc_k), (K, D, n)."""
    if factor.ndim == 2:
        return (rows.mT - loc[..., None]) * factor[..., None]
    middle = -(factor @ loc[..., None]).reshape(-1, 1)  # (K D, 1)
    stacked = factor.expand(len(loc), -1, -1).reshape(-1, loc.shape[1])  # (K D, D)
    return torch.addmm(middle, stacked, rows.mT).reshape(*loc.shape, -1)


def _from_white(count: Tensor, first: Tensor, second: Tensor, loc: Tensor, factor: Tensor) -> Statistics:
    """Statistics from sums of whitened rows, (K, D), and of their products, (K, D, D), or squares, (K, D)."""
    shift = torch.where(count[:, None] > 0, first / count[:, None], 0.0)  # (K, D), in sds
    if factor.ndim == 2:
        scatter = (second - count[:, None] * shift.square()).clamp(min=0) / factor.square()
        return Statistics(count, loc + shift / factor, scatter)
    root = torch.linalg.solve_triangular(factor, torch.eye(loc.shape[1]).to(loc), upper=False)  # W^-1
    scatter = root @ (second - count[:, None, None] * shift[:, :, None] * shift[:, None]) @ root.mT
    scatter = scatter.mean(0).expand_as(scatter) if len(factor) == 1 else scatter
    return Statistics(count, loc + (root @ shift[..., None])[..., 0], scatter, tied=len(factor) == 1)


def _normalise(table: Tensor) -> Tensor:
    """Turn log joint densities into memberships in place, (K, n); return their log sums, (n,)."""
    top = table.amax(0)
    table.sub_(top).exp_()
    total = table.sum(0)
    table.div_(total)
    return total.log_().add_(top)
