"""What can be wrong with draws, one test a function: each yields what it found, and what to do next."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import xarray as xr
from arviz_stats.sampling_diagnostics import ess, rhat, rhat_nested
from torch import Tensor

from inference.base import Fit, Unsupported, conditioned, fresh
from inference.check.finding import Finding, extreme, typical
from inference.tracing.over_draws import flatten
from inference.tracing.sites import Program

MANY = 16  # chains above which R-hat compares groups of chains
STUCK = 1.1  # R-hat above which many chains may each stay in a place of its own; of few, any that is judged


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
    chains = posterior.sizes["chain"]
    with np.errstate(invalid="ignore"):  # an element that never varies has no R-hat
        every = rhat(posterior) if chains > 1 else {}
        table = every if chains <= MANY else _nested(posterior)
        bulk, tail = ess(posterior, method="bulk"), ess(posterior, method="tail")
    for name in posterior.data_vars:
        values = posterior[name]
        if chains > 1 and (found := _stuck(values, every[name])):
            yield found
            continue
        if chains > 1 and (worst := extreme(table[name], largest=True)) and worst[1] > 1.01:
            yield _disagreement(values, *worst, typical(table[name]))
        for kind, sizes in (("bulk", bulk), ("tail", tail)):
            place, number = extreme(sizes[name], largest=False) or ("", math.inf)
            if number < 400:
                factor = math.ceil(400 / max(number, 1.0))
                sentence = f"{kind} ESS {number:.0f} is below 400: sample {factor} times as long"
                yield Finding("error" if number < 100 else "warning", place, number, sentence)


def _nested(posterior: xr.Dataset) -> xr.Dataset:
    """R-hat of eight groups of chains."""
    size = posterior.sizes["chain"] // 8
    return rhat_nested(posterior.isel(chain=slice(0, 8 * size)), superchain_ids=np.repeat(np.arange(8), size))


def heights(fit: Fit) -> Iterator[Finding]:
    """Yield a finding when chains stay at log densities of their own, as those of a network do in separate modes.

    A posterior's draws all have the same law of log density, so chains that do not are in different places, whatever
    coordinates or predictions say; one whose halves differ as much is still on its way.
    """
    lp = fit.stats.get("lp")
    if lp is None or not 1 < len(lp) <= MANY or lp.shape[1] < 20:
        return
    lp = lp.double()
    mean, scatter, half = lp.mean(1), float(lp.std(1).median()), lp.shape[1] // 2
    apart = float(mean.max() - mean.min())
    if not apart > 3 * scatter:
        return
    moving = int(((lp[:, half:].mean(1) - lp[:, :half].mean(1)).abs() > max(2 * scatter, apart / 3)).sum())
    if moving:
        said = f"{moving} of {len(lp)} are still on their way: warm up longer"
    else:
        said = "none moves: they sit in separate modes, where longer runs will not help; average over more chains"
    where = f"from {float(mean.min()):.4g} to {float(mean.max()):.4g}"
    yield Finding(
        "warning", "", apart / scatter, f"chains' log densities lie {where}, each within {scatter:.2g}; {said}"
    )


def energy(fit: Fit) -> Iterator[Finding]:
    """Yield a finding when the momentum cannot carry chains across energies, Betancourt's E-BFMI."""
    if "energy" not in fit.stats or fit.stats["energy"].shape[1] < 4:
        return
    e = fit.stats["energy"].double()
    moved, spread = e.diff(dim=1).square().mean(1), e.var(1)
    bfmi = (moved / spread).min() if len(e) <= MANY else moved.mean() / e.var()  # short chains know no variance
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
        yield Finding(level, "", rate, f"{said}: {_smaller_steps(fit)}reparametrise")
        return
    scale, site, plate = neck
    advice = f"write {site!r} non-centred, {site} = loc + scale * standard normal (or LocScaleReparam(0.0))"
    where = f"where {scale!r}, the scale of plate {plate!r}, is small"
    yield Finding(level, scale, rate, f"{said}, {where}: {advice}")


def _stuck(values: xr.DataArray, every: xr.DataArray) -> Finding | None:
    """R-hat's finding over single chains: each stays in its mode, which groups that have all modes cannot tell."""
    place, worst = extreme(every, largest=True) or ("", 1.0)
    limit = STUCK if values.sizes["chain"] > MANY else 1.01
    groups = _modes(_element(values, place)) if worst > limit else ""
    return _separate(values, place, worst, groups, typical(every)) if groups else None


def _disagreement(values: xr.DataArray, place: str, rhat: float, among: str) -> Finding:
    """R-hat's finding: too short a run, or chains that sit in separate modes."""
    if groups := _modes(_element(values, place)):
        return _separate(values, place, rhat, groups, among)
    level = "error" if rhat > 1.05 else "warning"
    sentence = f"R-hat {rhat:.3f}{among} is above 1.01: chains have not mixed; warm up and sample longer"
    return Finding(level, place, rhat, sentence)


def _separate(values: xr.DataArray, place: str, rhat: float, groups: str, among: str) -> Finding:
    advice = values.attrs.get("apart", "fix an order or a sign, or start the chains together")
    said = f"R-hat {rhat:.3f}{among}: chains sit in separate modes ({groups}): {advice}; longer runs will not help"
    return Finding("error", place, rhat, said)


def _modes(draws: np.ndarray) -> str:
    """Say which chains sit where, when the widest gap between chains is beyond all scatter inside them."""
    order, scatter = np.argsort(draws.mean(1)), draws.std(1)
    means = draws.mean(1)[order]
    gaps = np.diff(means)
    cut = int(gaps.argmax())
    beside = scatter[order[cut : cut + 2]].max()  # a chain that went far out in a heavy tail scatters far
    if gaps[cut] < 3 * max(np.median(scatter), beside):
        return ""
    low, high = means[: cut + 1], means[cut + 1 :]
    return f"{len(low)} near {low.mean():.3g}, {len(high)} near {high.mean():.3g}"


def _smaller_steps(fit: Fit) -> str:
    """The advice to take smaller steps, where there are any."""
    now = float(fit.info.get("target_accept_prob", 0.8))
    if now >= 0.99:
        return ""
    return f"raise target_accept_prob from {now:g} to {0.95 if now < 0.95 else 0.99:g}, or "


def _neck(fit: Fit, diverging: Tensor) -> tuple[str, str, str] | None:
    """The scale, the site it scales and that site's plate, where divergences gather at small scales."""
    flags = diverging.reshape(-1)
    draws, _ = flatten(fit.draws)
    if len(flags) != len(next(iter(draws.values()))) or fit.model is None:
        return None
    for name, value in draws.items():
        if value.ndim == 1 and value.is_floating_point():
            logs = value.double().log() if bool((value > 0).all()) else value.double()  # a scale, or the log of one
            shift = (logs[~flags].mean() - logs[flags].mean()) / logs[~flags].std()
            scaled = _scaled_by(fit, name, draws) if shift > 0.5 else None
            if scaled is not None:
                return name, *scaled
    return None


def _scaled_by(fit: Fit, scale: str, draws: dict[str, Tensor]) -> tuple[str, str] | None:
    """A latent site in a plate whose prior variance changes with this scale, and the plate."""
    first = {name: value[0] for name, value in draws.items()}
    larger = first[scale] + first[scale].abs() + 0.1
    try:
        with fresh(fit.model, fit.args, fit.kwargs) as model, torch.no_grad():
            call = conditioned(model)
            before = Program.read(call, fit.args, fit.kwargs, first)
            after = Program.read(call, fit.args, fit.kwargs, {**first, scale: larger})
            for name in before.latent:
                one, two = before.nodes[name], after.nodes[name]
                plates = [f.name for f in one["cond_indep_stack"] if f.vectorized]
                same = torch.equal(one["fn"].variance, two["fn"].variance)
                if name != scale and plates and not same:
                    return name, plates[0]
    except (Unsupported, RuntimeError, ValueError, NotImplementedError):
        return None  # a hint that cannot be had is none; the divergences are reported all the same
    return None


def _element(values: xr.DataArray, place: str) -> np.ndarray:
    """The draws of the element of that name, (chain, draw)."""
    labels: Any = place[len(str(values.name)) + 1 : -1].split(", ") if "[" in place else []
    for dim, label in zip([d for d in values.dims if d not in ("chain", "draw")], labels, strict=True):
        values = values.isel({dim: [str(v) for v in values[dim].values].index(label)})
    return values.transpose("chain", "draw").to_numpy()
