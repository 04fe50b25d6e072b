"""What the data do not tell: sites wider than their priors, or known only together."""

from collections.abc import Iterator

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from inference.base import Fit, Unsupported
from inference.check.finding import Finding, extreme
from inference.predict import prior_predictive
from inference.tracing.over_draws import flatten

PROBED = 60  # scalars whose correlations are looked at
THINNED = 20_000  # draws that are enough to see a width


def identification(fit: Fit, posterior: xr.Dataset) -> Iterator[Finding]:
    """Yield a finding for each site whose posterior is far wider than its prior, and for a pair that is one number."""
    sites = [name for name, value in fit.draws.items() if value.is_floating_point() and value.shape[:2].numel() >= 50]
    try:
        prior = prior_predictive(fit.model, *fit.args, num_samples=400, sites=sites, **fit.kwargs) if sites else {}
    except (Unsupported, RuntimeError, ValueError, KeyError):
        return  # an improper prior is wider than any posterior
    ratios = {}
    for name, before in prior.items():
        if before.shape[2:] == fit.draws[name].shape[2:] and name in posterior:
            like = posterior[name].isel(chain=0, draw=0, drop=True)
            ratios[name] = like.copy(data=(_width(fit.draws[name]) / _width(before)).numpy())
    for ratio in ratios.values():
        place, worst = extreme(ratio, largest=True) or ("", 0.0)
        if worst > 3:
            advice = "chains may wander or be in separate modes; check identification, or fix an ordering"
            sentence = f"the posterior is {worst:.1f} times as wide as the prior: {advice}"
            yield Finding("warning", place, worst, sentence)
    yield from _ridge(fit, ratios)


def _ridge(fit: Fit, ratios: dict[str, xr.DataArray]) -> Iterator[Finding]:
    """Yield the two scalars that are known only together: nearly as wide as their priors, and almost one number."""
    draws, _ = flatten(fit.draws)
    names = [name for name, ratio in ratios.items() if ratio.size == 1 and draws[name].ndim == 1 and ratio > 0.4]
    if not 2 <= len(names) <= PROBED:
        return
    ranks = torch.stack([_thin(draws[name]).double().argsort().argsort().double() for name in names])
    correlation = torch.corrcoef(ranks).fill_diagonal_(0.0)
    i, j = np.unravel_index(int(correlation.abs().nan_to_num().argmax()), correlation.shape)
    found = float(correlation[i, j])
    if abs(found) > 0.98:
        one, other = names[i], names[j]
        what = "difference" if found > 0 else "sum"
        advice = f"fix one of them, or write the model in terms of their {what}"
        sentence = f"{one!r} and {other!r} are known only together (rank correlation {found:.3f}): {advice}"
        yield Finding("note", one, found, sentence)


def _width(draws: Tensor) -> Tensor:
    """The interquartile range of each element: a sd would not exist under a Cauchy prior."""
    low, high = _thin(draws.flatten(0, 1)).double().quantile(torch.tensor([0.25, 0.75]).double(), dim=0)
    return high - low


def _thin(draws: Tensor) -> Tensor:
    """Some of the draws, (n, ...), all along the run."""
    return draws[:: max(1, len(draws) // THINNED)]
