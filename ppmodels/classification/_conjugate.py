"""The conjugate prior of naive Bayes: its posterior given tables, modes, means and evidence."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

from ppmodels.base import Theta
from ppmodels.base.moments import Moments
from ppmodels.classification._tables import Tables


class NormalGamma(NamedTuple):
    r"""mu | tau ~ N(mean, 1 / (rows tau)), tau ~ Gamma(shape, rate), each (C, G)."""

    mean: Tensor
    rows: Tensor
    shape: Tensor
    rate: Tensor


def normal_gamma(model: Any, moments: Moments) -> NormalGamma:
    """Return the posterior of the real columns.

    Source: Murphy (2007), Conjugate Bayesian analysis of the Gaussian distribution, equations 85 to 89.
    """
    count, mean, scatter = moments.count, moments.mean, moments.scatter
    center, scale = (
        torch.tensor(field, dtype=torch.float64).to(mean).expand_as(mean) for field in (model.center, model.scale)
    )
    rows = count + model.strength
    gap = mean - center
    rate = model.strength * scale.square() + scatter + count * model.strength / rows * gap.square()
    return NormalGamma(center + count / rows * gap, rows, rows / 2, rate / 2)


def posterior(model: Any, sums: Tables) -> dict[str, Any]:
    """Return the posterior by site; loc's is a function of the draws of precision."""
    sites: dict[str, Any] = {"class_prob": dist.Dirichlet((model.alpha + sums.count).to(sums.dtype))}
    if sums.seen.shape[1]:
        ones, zeros = (model.alpha + part.to(sums.dtype) for part in (sums.ones, sums.seen - sums.ones))
        sites["rate"] = dist.Beta(ones, zeros).to_event(2)
    if sums.words.shape[1]:
        sites["word_prob"] = dist.Dirichlet((model.alpha + sums.words).to(sums.dtype)).to_event(1)
    for column, table in sums.levels.items():
        sites[f"table_{column}"] = dist.Dirichlet((model.alpha + table).to(sums.dtype)).to_event(1)
    if sums.moments.mean.shape[1]:
        law = NormalGamma(*(part.to(sums.dtype) for part in normal_gamma(model, sums.moments)))
        sites["precision"] = dist.Gamma(law.shape, law.rate).to_event(2)
        sites["loc"] = _loc(law)
    return sites


def _loc(law: NormalGamma) -> Callable[[Theta], Any]:
    return lambda draws: dist.Normal(law.mean, (law.rows * draws["precision"]).rsqrt()).to_event(2)


def best(model: Any, sums: Tables, prior: bool) -> Theta:
    """Return the maximum of the likelihood, or with `prior` of the posterior density.

    Without counts, a probability without prior is even.
    """
    extra = model.alpha - 1 if prior else 0.0
    theta = {"class_prob": _share(sums.count + extra)}
    if sums.seen.shape[1]:
        ones, zeros = sums.ones + extra, sums.seen - sums.ones + extra
        theta["rate"] = _share(torch.stack([ones, zeros], -1))[..., 0]
    if sums.words.shape[1]:
        theta["word_prob"] = _share(sums.words + extra)
    for column, table in sums.levels.items():
        theta[f"table_{column}"] = _share(table + extra)
    if sums.moments.mean.shape[1]:
        theta |= _best_normal(model, sums, prior)
    return {name: value.to(sums.dtype) for name, value in theta.items()}


def _best_normal(model: Any, sums: Tables, prior: bool) -> Theta:
    """Mean and precision of the real columns."""
    if prior:
        law = normal_gamma(model, sums.moments)
        return {"loc": law.mean, "precision": (law.shape - 0.5).clamp(min=0) / law.rate}
    count, mean, scatter = sums.moments.count, sums.moments.mean, sums.moments.scatter
    empty = (~(scatter > 0)).nonzero()
    if len(empty):
        c, g = empty[0].tolist()
        raise ArithmeticError(f"real column {g} does not vary in class {c} ({count[c, g]:.3g} rows); take prior=True")
    return {"loc": mean, "precision": count / scatter}


def mean_of(model: Any, sums: Tables) -> Theta:
    """Return the posterior means: of probabilities they predict the next row exactly (rule of succession)."""
    theta = {"class_prob": _share(sums.count + model.alpha)}
    if sums.seen.shape[1]:
        theta["rate"] = (sums.ones + model.alpha) / (sums.seen + 2 * model.alpha)
    if sums.words.shape[1]:
        theta["word_prob"] = _share(sums.words + model.alpha)
    for column, table in sums.levels.items():
        theta[f"table_{column}"] = _share(table + model.alpha)
    if sums.moments.mean.shape[1]:
        law = normal_gamma(model, sums.moments)
        theta |= {"loc": law.mean, "precision": law.shape / law.rate}
    return theta


def log_evidence(model: Any, sums: Tables) -> Tensor:
    """Return log p(x, y), (), with every parameter integrated out, without the multinomial coefficients."""
    alpha = model.alpha
    total = _dirichlet(sums.count, alpha)
    total = total + _dirichlet(torch.stack([sums.ones, sums.seen - sums.ones], -1), alpha)
    for table in [sums.words, *sums.levels.values()]:
        total = total + _dirichlet(table, alpha)
    count, law = sums.moments.count, normal_gamma(model, sums.moments)
    before = normal_gamma(model, sums.moments * 0.0)
    pieces = law.shape.lgamma() - before.shape.lgamma() + (before.rows / law.rows).log() / 2
    pieces = pieces + before.shape * before.rate.log() - law.shape * law.rate.log()
    return total + (pieces - count / 2 * math.log(2 * math.pi)).sum()


def _dirichlet(counts: Tensor, alpha: float) -> Tensor:
    """Log evidence of counts (..., K) under Dirichlets of `alpha`, summed, ()."""
    size = counts.shape[-1]
    rows = (counts + alpha).lgamma().sum(-1) - (counts.sum(-1) + size * alpha).lgamma()
    constant = math.lgamma(size * alpha) - size * math.lgamma(alpha) if size else 0.0
    return rows.sum() + rows.numel() * constant if size else counts.new_zeros(())


def _share(counts: Tensor) -> Tensor:
    """Counts (..., K) as probabilities; even where there are none."""
    total = counts.sum(-1, keepdim=True)
    return torch.where(total > 0, counts / total, 1 / counts.shape[-1])
