"""Coordinates without funnels: how far each element of a site with a latent scale is centred, learned from draws.

What data say much about moves best as written, what they say little about non-centred; a program is written in one
way for all. Pathfinder's Gaussians say which end is nearer, and the chains' first turns say the rest.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from inference.density import Batched, Density
from inference.density.centring import Centring, turned
from inference.mcmc.chains import Chains, Tuned
from inference.mcmc.memory import Sparing, within
from inference.mcmc.metric import learn
from inference.mcmc.plan import Plan
from inference.mcmc.start import paths_of, start
from inference.mcmc.warmup import Window, warm_up

TURNS, ROUNDS = 60, 2  # of all chains before each look at the coordinates, and looks
GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
LAST = 10  # turns whose places make the metric in new coordinates
BETTER = 0.05  # that log sd(u) sd(grad) must fall by, for an element to change its coordinate


class Coordinates(NamedTuple):
    """A density and how far its coordinates are centred, (dim,); None where all are as written."""

    density: Density
    centring: Centring | None = None
    centred: Tensor | None = None

    @classmethod
    def of(cls, written: Density, centred: Tensor | None) -> "Coordinates":
        """Return the coordinates of this centredness."""
        centring = Centring.of(written) if centred is not None else None
        return cls.at(centring, centred) if centring is not None and centred is not None else cls(written)

    @classmethod
    def at(cls, centring: Centring, centred: Tensor) -> "Coordinates":
        return cls(centring.at(centred), centring, centred)

    @property
    def shares(self) -> dict[str, float]:
        """How far each site with a latent scale is centred, on average over its elements."""
        if self.centring is None or self.centred is None:
            return {}
        sites = [site for site in self.density.layout.sites if site.name in self.centring.names]
        return {site.name: float(self.centred[site.start : site.stop].mean()) for site in sites}


class Start(NamedTuple):
    """Where chains start, what is tuned by then, and the gradients spent."""

    coordinates: Coordinates
    batched: Batched
    chains: Chains
    tuned: Tuned
    spent: int


def begin(density: Density, plan: Plan, generator: torch.Generator) -> Start:
    """Return chains on the density, in the coordinates that are best for it."""
    coordinates = _nearer_end(density, plan, generator)
    density = coordinates.density
    batched = density.batched(plan.warmup_chains, calls=plan.warmup_calls, compile=plan.compile)
    chains, tuned, spent = within(density, batched, generator, lambda: start(density, batched, plan, generator))
    found = Start(coordinates, batched, chains, tuned, spent)
    for _ in range(ROUNDS if coordinates.centring is not None and plan.centred == "auto" else 0):
        centred = found.coordinates.centred
        found = _look(found, plan, generator)
        if found.coordinates.centred is centred:
            break
    return found


def _nearer_end(density: Density, plan: Plan, generator: torch.Generator) -> Coordinates:
    """The density as it is where no site has a latent scale; else the end that is closer to a Gaussian."""
    centring = None if plan.centred is True else Centring.of(density)
    if centring is None:
        return Coordinates(density)
    ends = [Coordinates.at(centring, centring.all_at(c)) for c in (0.0, 1.0)]
    if plan.centred is False or plan.init != "pathfinder":
        return ends[0]
    best = [float(paths_of(end.density, generator).elbo.nan_to_num(nan=-torch.inf).max()) for end in ends]
    return ends[best.index(max(best))]


def _look(now: Start, plan: Plan, generator: torch.Generator) -> Start:
    """Move the chains some turns, and go over to the coordinates that their draws say are best."""
    coordinates, window, spent = now.coordinates, Window(most=4000), [now.spent]
    centring, centred = coordinates.centring, coordinates.centred
    assert centring is not None
    assert centred is not None

    def watch(_: int, chains: Chains, stats: dict[str, Tensor], __: Tuned) -> None:
        window.add(chains)
        spent.append(int(stats["n_steps"].sum()))

    kernel = Sparing(coordinates.density, now.batched, plan, generator)
    chains, tuned = warm_up(kernel, now.chains, now.tuned, TURNS, plan.target_accept_prob, watch)
    u, grads = window.pooled(TURNS // 2)
    best = best_centred(u, grads, *centring.parameters(u, centred), centred)
    if torch.equal(best, centred):
        return now._replace(chains=chains, tuned=tuned, spent=sum(spent))
    there = Coordinates.at(centring, best)
    batched = there.density.batched(now.batched.chains, calls=plan.warmup_calls, compile=plan.compile)
    places = [turned(x, *centring.parameters(x, centred), centred, best) for x in window.draws[-LAST:]]
    found = [batched.once(x) for x in places]
    metric = learn(torch.cat(places), torch.cat([grad for _, grad in found]))
    tuned = Tuned(tuned.step_size, tuned.length, metric)
    return Start(there, batched, Chains(places[-1], *found[-1]), tuned, sum(spent) + len(places) * batched.chains)


def best_centred(u: Tensor, grads: Tensor, loc: Tensor, scale: Tensor, now: Tensor) -> Tensor:
    """Return for each coordinate the c, (dim,), in which it is most like a Gaussian; all else (n, dim).

    For one coordinate the Fisher divergence to the nearest Gaussian is 2 sd(u) sd(du log p) - 2; the derivative in
    another c is scale^(now - c) times as large, the other coordinates fixed.

    Source: Seyboldt, Carlson, Carpenter (2026), Preconditioning HMC by minimising Fisher divergence.
    """
    costs = []
    for c in (now, *(torch.full_like(now, value) for value in GRID)):
        there = turned(u, loc, scale, now, c)
        costs.append((there.std(0) * (grads * scale ** (now - c)).std(0)).log())
    cost = torch.stack(costs).nan_to_num(nan=torch.inf)  # (grid, dim)
    better, place = cost[1:].min(0)
    grid = torch.tensor(GRID, dtype=now.dtype, device=now.device)
    return torch.where(better < cost[0] - BETTER, grid[place], now)
