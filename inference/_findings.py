"""What can be wrong with draws, one test a function: each yields what it found, and what to do next."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from arviz_stats.sampling_diagnostics import ess, rhat, rhat_nested
from torch import Tensor

from inference._over_draws import flatten
from inference._sites import Program
from inference.base import Fit, Unsupported, fresh, joint
from inference.predict import prior_predictive

MANY = 16  # chains above which R-hat compares groups of chains


class Finding(NamedTuple):
    """One thing that is wrong (`error`), doubtful (`warning`) or worth knowing (`note`).

    site: where, with the place inside the site when it is one; empty when it is the whole run.
    number: the figure that was judged.
    sentence: what it means and what to do next.
    """

    level: str
    site: str
    number: float
    sentence: str


def optimisation(fit: Fit) -> Iterator[Finding]:
    """Yield a finding when the optimiser says that it did not converge, or when draws are not numbers."""
    for name, value in fit.draws.items():
        bad = int((~torch.isfinite(value)).sum()) if value.is_floating_point() else 0
        if bad:
            yield Finding("error", name, bad, f"{bad} values are not finite: check priors and scales")
    if fit.info.get("converged") is False:
        message = str(fit.info.get("message") or "it stopped at its last step")
        advice = "allow more steps, start elsewhere, or scale the data to sd 1"
        yield Finding("error", "", math.nan, f"{fit.method} did not converge ({message}): {advice}")


def importance(fit: Fit) -> Iterator[Finding]:
    """Yield a finding when the Pareto tail of the importance weights says that a fit is far off."""
    khat = fit.info.get("khat")
    if khat is None:
        return
    khat, draws = float(khat), flatten(fit.draws)[1].numel()
    limit = min(1 - 1 / math.log10(max(draws, 11)), 0.7)
    if not khat <= limit:
        level = "error" if not khat <= 1 else "warning"
        advice = "take a richer guide (full_rank, flow), reparametrise, or run mcmc"
        said = f"Pareto k-hat {khat:.2f} is above {limit:.2f}, so the approximation misses the posterior"
        yield Finding(level, "", khat, f"{said}: {advice}")


def mixing(posterior: xr.Dataset) -> Iterator[Finding]:
    """Yield a finding for each site whose chains disagree or hold too few independent draws.

    Source: Vehtari et al. (2021), Bayesian Analysis 16, for rank R-hat, bulk and tail ESS; Margossian et al.
    (2024), Bayesian Analysis 20, for nested R-hat, which groups of chains have when there are many.
    """
    if posterior.sizes["draw"] < 4:
        return
    chains, table = posterior.sizes["chain"], {}
    if chains > MANY:
        size = chains // 8
        grouped = posterior.isel(chain=slice(0, 8 * size))
        groups = np.repeat(np.arange(8), size)
        table = rhat_nested(grouped, superchain_ids=groups)
    elif chains > 1:
        table = rhat(posterior)
    bulk, tail = ess(posterior, method="bulk"), ess(posterior, method="tail")
    for name in posterior.data_vars:
        values = posterior[name]
        if chains > 1 and (worst := _extreme(table[name], largest=True)) and worst[1] > 1.01:
            yield _disagreement(values, *worst)
        for kind, sizes in (("bulk", bulk), ("tail", tail)):
            place, number = _extreme(sizes[name], largest=False) or ("", math.inf)
            if number < 400:
                factor = math.ceil(400 / max(number, 1.0))
                sentence = f"{kind} ESS {number:.0f} is below 400: sample {factor} times as long"
                yield Finding("error" if number < 100 else "warning", place, number, sentence)


def energy(fit: Fit) -> Iterator[Finding]:
    """Yield a finding when the momentum cannot carry chains across energies, Betancourt's E-BFMI."""
    if "energy" not in fit.stats or fit.stats["energy"].shape[1] < 4:
        return
    e = fit.stats["energy"].double()
    bfmi = (e.diff(dim=1).square().mean(1) / e.var(1)).min()
    if not bfmi >= 0.3:
        advice = "heavy tails or a funnel; reparametrise, or put a tighter prior on scales"
        yield Finding("warning", "", float(bfmi), f"BFMI {float(bfmi):.2f} is below 0.3: {advice}")


def tree_depth(fit: Fit) -> Iterator[Finding]:
    """Yield a finding when trajectories are cut off at the greatest depth."""
    if "reached_max_treedepth" not in fit.stats:
        return
    rate = float(fit.stats["reached_max_treedepth"].double().mean())
    if rate > 0.01:
        advice = "raise max_tree_depth, or scale and rotate the parameters so that their sds are alike"
        yield Finding("warning", "", rate, f"{rate:.0%} of the trajectories reach the greatest depth: {advice}")


def divergences(fit: Fit) -> Iterator[Finding]:
    """Yield a finding when trajectories diverge, naming the scale and plate at whose neck they do."""
    diverging = fit.stats.get("diverging")
    if diverging is None or not bool(diverging.any()):
        return
    count, rate = int(diverging.sum()), float(diverging.double().mean())
    level = "error" if rate > 0.01 else "warning"
    said = f"{count} of {diverging.numel()} draws diverge ({rate:.1%})"
    neck = _neck(fit, diverging)
    if neck is None:
        yield Finding(level, "", rate, f"{said}: raise target_accept_prob to 0.95, or reparametrise")
        return
    scale, site, plate = neck
    advice = f"write {site!r} non-centred, site = loc + {scale} * standard normal (or LocScaleReparam(0.0))"
    where = f"where {scale!r}, the scale of plate {plate!r}, is small"
    yield Finding(level, scale, rate, f"{said}, {where}: {advice}")


def identification(fit: Fit, posterior: xr.Dataset) -> Iterator[Finding]:
    """Yield a finding for each site whose posterior is far wider than its prior."""
    sites = [name for name, value in fit.draws.items() if value.is_floating_point() and value.shape[:2].numel() >= 50]
    try:
        prior = prior_predictive(fit.model, *fit.args, num_samples=400, sites=sites, **fit.kwargs) if sites else {}
    except (Unsupported, RuntimeError, ValueError, KeyError):
        return  # an improper prior is wider than any posterior
    for name, before in prior.items():
        if before.shape[2:] != fit.draws[name].shape[2:] or name not in posterior:
            continue
        ratio = _width(fit.draws[name]) / _width(before)
        like = posterior[name].isel(chain=0, draw=0, drop=True)
        place, worst = _extreme(like.copy(data=ratio.numpy()), largest=True) or ("", 0.0)
        if worst > 3:
            advice = "chains may wander or be in separate modes; check identification, or fix an ordering"
            sentence = f"the posterior is {worst:.1f} times as wide as the prior: {advice}"
            yield Finding("warning", place, worst, sentence)


def _disagreement(values: xr.DataArray, place: str, rhat: float) -> Finding:
    """R-hat's finding: too short a run, or chains that sit in separate modes."""
    level = "error" if rhat > 1.05 else "warning"
    groups = _modes(_element(values, place))
    if groups:
        advice = "fix an order or a sign, or start the chains together; longer runs will not help"
        return Finding(level, place, rhat, f"R-hat {rhat:.3f}: chains sit in separate modes ({groups}): {advice}")
    return Finding(
        level,
        place,
        rhat,
        f"R-hat {rhat:.3f} is above 1.01: chains have not mixed; warm up and sample longer",
    )


def _modes(draws: np.ndarray) -> str:
    """Say which chains sit where, when the widest gap between chains is beyond all scatter inside them."""
    means = np.sort(draws.mean(1))
    gaps = np.diff(means)
    cut = int(gaps.argmax())
    if gaps[cut] < 3 * np.median(draws.std(1)):
        return ""
    low, high = means[: cut + 1], means[cut + 1 :]
    return f"{len(low)} near {low.mean():.3g}, {len(high)} near {high.mean():.3g}"


def _neck(fit: Fit, diverging: Tensor) -> tuple[str, str, str] | None:
    """The scale, the site it scales and that site's plate, where divergences gather at small scales."""
    flags = diverging.reshape(-1)
    draws, _ = flatten(fit.draws)
    if len(flags) != len(next(iter(draws.values()))) or fit.model is None:
        return None
    for name, value in draws.items():
        if value.ndim == 1 and value.is_floating_point() and bool((value > 0).all()):
            logs = value.double().log()
            shift = (logs[~flags].mean() - logs[flags].mean()) / logs[~flags].std()
            scaled = _scaled_by(fit, name, draws) if shift > 0.5 else None
            if scaled is not None:
                return name, *scaled
    return None


def _scaled_by(fit: Fit, scale: str, draws: dict[str, Tensor]) -> tuple[str, str] | None:
    """A latent site in a plate whose prior changes with this scale, and the plate."""
    first = {name: value[0] for name, value in draws.items()}
    try:
        with fresh(fit.model, fit.args, fit.kwargs) as model, torch.no_grad():
            call = joint(model, fit.args, fit.kwargs)
            before = Program.read(call, fit.args, fit.kwargs, first)
            after = Program.read(call, fit.args, fit.kwargs, {**first, scale: 2 * first[scale]})
            for name in before.latent:
                one, two = before.nodes[name], after.nodes[name]
                plates = [f.name for f in one["cond_indep_stack"] if f.vectorized]
                same = torch.equal(one["fn"].log_prob(one["value"]), two["fn"].log_prob(one["value"]))
                if name != scale and plates and not same:
                    return name, plates[0]
    except (Unsupported, RuntimeError, ValueError):
        return None  # a hint that cannot be had is none; the divergences are reported all the same
    return None


def _width(draws: Tensor) -> Tensor:
    """The interquartile range of each element: a sd would not exist under a Cauchy prior."""
    low, high = draws.double().flatten(0, 1).quantile(torch.tensor([0.25, 0.75]).double(), dim=0)
    return high - low


def _extreme(table: xr.DataArray, largest: bool) -> tuple[str, float] | None:
    """The worst element's name and number; None where no element has one."""
    values = np.asarray(table.values, dtype=float)
    if not np.isfinite(values).any():
        return None
    flat = int(np.nanargmax(values) if largest else np.nanargmin(values))
    index = np.unravel_index(flat, values.shape)
    inside = ", ".join(str(table[d].values[i]) for d, i in zip(table.dims, index, strict=True))
    return (f"{table.name}[{inside}]" if inside else str(table.name)), float(values.flat[flat])


def _element(values: xr.DataArray, place: str) -> np.ndarray:
    """The draws of the element of that name, (chain, draw)."""
    labels: Any = place[len(str(values.name)) + 1 : -1].split(", ") if "[" in place else []
    for dim, label in zip([d for d in values.dims if d not in ("chain", "draw")], labels, strict=True):
        values = values.isel({dim: [str(v) for v in values[dim].values].index(label)})
    return values.transpose("chain", "draw").to_numpy()
