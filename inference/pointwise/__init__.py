"""log p(one observation | latents) for every draw, discrete sites summed out: what cross-validation needs."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inference.base import Draws, Fit, Unsupported, conditioned, fresh
from inference.pointwise.elimination import Factors, components, log_sum, marginals, shared_plates
from inference.tracing.learned import learned
from inference.tracing.over_draws import flatten, over_draws
from inference.tracing.sites import Program, place


@dataclass(frozen=True)
class Pointwise:
    """Log densities of sites at the draws, and how their axes are called.

    log_likelihood: by observed site, (chain, draw, *rows): one value an element of the plates that it
        falls apart along; one value a draw, (chain, draw), where a discrete site couples all rows.
    log_prior: by latent site, (chain, draw, *batch).
    dims: names of the axes after chain and draw, by site.
    """

    log_likelihood: Draws
    log_prior: Draws
    dims: Mapping[str, tuple[str, ...]]


def pointwise(fit: Fit, *, chunk: int | None = None) -> Pointwise:
    r"""Return the log likelihood of every observation, and the log prior, at every draw.

    .. math:: \log p(x_n \mid \theta) = \log \sum_{z_n} p(z_n \mid \theta) \, p(x_n \mid z_n, \theta)

    Where several observed sites hang on one discrete site, each has its conditional given those before it
    in the program, so that their sum is the joint. Bare factors (`pyro.factor`) are not observations.

    chunk: draws at once; by default as many as fit into memory.

    Raises: Unsupported when a latent site has no draws, so that its density is not that of a draw.
    """
    with fresh(fit.model, fit.args, fit.kwargs) as model, learned(fit), torch.no_grad():
        program, draws, shape = _read(fit, conditioned(model))
        wholes: Draws = {}
        priors: set[str] = set()
        dims: dict[str, tuple[str, ...]] = {}
        for block in program.blocks():
            factors = Factors(program, block, {name: value[0] for name, value in draws.items()})
            parts: dict[str, list[Tensor]] = {}
            for log_probs in over_draws(factors.log_probs, draws, chunk=chunk):
                for name, (plates, value, is_prior) in _values(factors, log_probs).items():
                    parts.setdefault(name, []).append(value)
                    dims[name] = tuple(factors.plate[p] for p in plates)
                    priors |= {name} if is_prior else set()
            for name, values in parts.items():
                axes = _axes(program, block, dims[name], first=1)
                wholes[name] = place(wholes.get(name), torch.cat(values), axes)
    named = {name: value.reshape(*shape, *value.shape[1:]) for name, value in wholes.items()}
    likelihood = {name: value for name, value in named.items() if name not in priors}
    return Pointwise(likelihood, {name: named[name] for name in named if name in priors}, dims)


def assignments(fit: Fit, *, average: bool = True, chunk: int | None = None) -> Draws:
    """Return the posterior of each summed-out discrete site, exactly, after any method.

    average: over the draws, (*plates, values); else for every draw, (chain, draw, *plates, values).
        An average means something only where the draws agree on the labels.

    Raises: Unsupported when the program has no discrete site to sum out.
    """
    with fresh(fit.model, fit.args, fit.kwargs) as model, learned(fit):
        program, draws, shape = _read(fit, conditioned(model))
        wholes: Draws = {}
        for block in program.blocks():
            with torch.no_grad():
                factors = Factors(program, block, {name: value[0] for name, value in draws.items()})
            plates = {f.name: tuple(factors.plate[p] for p in f.plates) for f in factors.factors if f.enumerated}
            if not plates:
                raise Unsupported("the program has no discrete site that is summed out")
            parts: dict[str, list[Tensor]] = {name: [] for name in plates}
            with torch.no_grad():
                chunks = over_draws(factors.log_probs, draws, chunk=chunk)
                for log_probs in chunks:
                    for name, value in _posterior(factors, log_probs).items():
                        parts[name].append(value.sum(0, keepdim=True) if average else value)
            for name, values in parts.items():
                value = torch.cat(values)
                value = value.sum(0, keepdim=True) / shape.numel() if average else value
                wholes[name] = place(wholes.get(name), value, _axes(program, block, plates[name], first=1))
    return {k: v[0] if average else v.reshape(*shape, *v.shape[1:]) for k, v in wholes.items()}


def _read(fit: Fit, call: Callable[..., Any]) -> tuple[Program, Draws, torch.Size]:
    """The program, its draws as one flat axis, (chain * draw, *site), and (chain, draw)."""
    draws, shape = flatten(fit.draws)
    program = Program.read(call, fit.args, fit.kwargs, {name: value[0] for name, value in draws.items()})
    for name, node in program.nodes.items():
        if not node["is_observed"] and name not in draws and not node["fn"].has_enumerate_support:
            raise Unsupported(f"there are no draws of site {name!r}, on which the observations depend")
    return program, draws, shape


def _values(factors: Factors, log_probs: Draws) -> dict[str, tuple[tuple[str, ...], Tensor, bool]]:
    """By site: the plates along which its value is pointwise, the value, and whether it is a prior."""
    found: dict[str, tuple[tuple[str, ...], Tensor, bool]] = {}
    for group in components(factors.at(log_probs), factors.plate):
        plates = shared_plates(group)
        data = [factor for factor in group if factor.is_data]
        latent = [factor for factor in group if not factor.is_data]
        if not any(factor.enumerated for factor in group):
            (only,) = group
            prior = only.name in factors.program.latent
            if only.is_data or prior:
                found[only.name] = (plates, log_sum([only], plates, factors.sizes), prior)
            continue
        before = log_sum(latent, plates, factors.sizes)
        for i, factor in enumerate(data):
            after = log_sum([*latent, *data[: i + 1]], plates, factors.sizes)
            found[factor.name] = (plates, after - before, False)
            before = after
    return found


def _posterior(factors: Factors, log_probs: Draws) -> Draws:
    found: Draws = {}
    for group in components(factors.at(log_probs), factors.plate):
        if any(factor.enumerated for factor in group):
            with torch.enable_grad():
                found |= marginals(group, factors.sizes)
    return found


def _axes(
    program: Program, block: Mapping[str, Tensor], names: Iterable[str], first: int
) -> dict[int, tuple[int, Tensor]]:
    """Which axes of a block's result are sub-sampled plates: their full size, and the rows at hand."""
    places = enumerate(names, first)
    return {axis: (program.plates[name][0], block[name]) for axis, name in places if name in block}
