"""Coordinates in which a latent with a latent scale has no funnel: as written, non-centred, or in between.

A site x ~ (loc, scale), whose scale hangs on other latents, gets the coordinate u of

    x = loc + scale^(1 - c) (u - c loc),   u ~ (c loc, scale^c),

with c in [0, 1] for each element: 1 is as written, 0 non-centred. The program stays the user's own, and so do the
names and values of its sites.

Source: Papaspiliopoulos, Roberts, Sköld (2007), A general framework for the parametrization of hierarchical
models; a c for each element: Gorinova, Moore, Hoffman (2020), Automatic reparameterisation.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions.transforms import ExpTransform

from inference.density import Density
from inference.density.inputs import no_validation, tensors_of
from inference.density.program import Layout, log_density
from inference.density.sites import SiteMap, site_map

FAMILIES = (dist.Normal, dist.StudentT, dist.Cauchy, dist.Laplace, dist.Logistic)
LOC, SCALE = "loc of every coordinate", "scale of every coordinate"


@dataclass(frozen=True)
class Centring:
    """A density as written, and the sites whose scale hangs on other latents: those that can make a funnel."""

    density: Density
    names: tuple[str, ...]
    _made: dict[str, SiteMap] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, density: Density) -> "Centring | None":
        """Return the density's centring; None where no site has a latent scale."""
        seen = _Parameters(density.layout)
        run = log_density(_inside(density.program, seen), density.layout)
        x = torch.zeros(density.dim, device=density.device).requires_grad_()
        with torch.enable_grad(), no_validation():
            run(x, density.args, density.kwargs)
        names = tuple(name for name, (_, scale) in seen.found.items() if scale.requires_grad)
        return cls(density, names) if names else None

    def at(self, centred: Tensor) -> Density:
        """Return the density in the coordinates of this centredness, (dim,); it counts for the sites' elements alone.

        It is an input of the program, as data are: another one needs no new trace.
        """
        whole, names = self.density, self.names

        def program(centred: Tensor, *args: Any, **kwargs: Any) -> None:
            with _Recentred(whole.layout, names, centred):
                whole.program(*args, **kwargs)

        key = "centred", names, getattr(whole.program, "key", whole.program)
        program.key = key  # pyright: ignore[reportFunctionMemberAccess]
        return Density(whole.layout, program, (centred, *whole.args), whole.kwargs, whole.jacobian)

    def all_at(self, centred: float) -> Tensor:
        """Return one centredness for all elements, (dim,)."""
        return torch.full((self.density.dim,), centred, device=self.density.device)

    def parameters(self, x: Tensor, centred: Tensor) -> tuple[Tensor, Tensor]:
        """Return location and scale at x, (n, dim) each: 0 and 1 where a coordinate belongs to another site."""
        density = self.at(centred)
        if "parameters" not in self._made:
            points = torch.randn(3, density.dim, generator=torch.Generator().manual_seed(7), dtype=x.dtype)
            layout, program = replace(density.layout, deterministic=(LOC, SCALE)), self._noting(density)
            self._made["parameters"] = site_map(program, layout, density.args, density.kwargs, points.to(x.device))
        found = self._made["parameters"](x, tensors_of(density.args, density.kwargs))
        return found[LOC], found[SCALE]

    def _noting(self, density: Density) -> Callable[..., None]:
        """The program with two more computed sites: location and scale of every coordinate."""

        def program(*args: Any, **kwargs: Any) -> None:
            seen = _Parameters(density.layout)
            _inside(density.program, seen)(*args, **kwargs)
            found = {name: pair for name, pair in seen.found.items() if name in self.names}
            for what, place, rest in ((LOC, 0, 0.0), (SCALE, 1, 1.0)):
                values = {name: pair[place] for name, pair in found.items()}
                pyro.deterministic(what, _flat(density.layout, values, rest, args[0]))

        return program


def turned(x: Tensor, loc: Tensor, scale: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """Return x, (n, dim), of one centredness in the coordinates of another, each (dim,)."""
    return new * loc + scale ** (new - old) * (x - old * loc)


class _Own:
    """A site's own coordinates: x = outer(shift + factor u), where u follows `law`."""

    def __init__(self, fn: Any, c: Tensor) -> None:
        family, outer, self.event = location_scale(fn)
        factor = family.scale ** (1 - c)
        self.shift, self.factor, self.outer = family.loc - factor * c * family.loc, factor, outer
        names = {name: getattr(family, name) for name in family.arg_constraints}
        self.law = type(family)(**{**names, "loc": c * family.loc, "scale": family.scale**c})

    def __call__(self, u: Tensor) -> Tensor:
        """Return the value at u."""
        x = self.shift + self.factor * u
        return x.exp() if self.outer else x

    def inv(self, value: Tensor) -> Tensor:
        """Return u of a value."""
        return ((value.log() if self.outer else value) - self.shift) / self.factor

    def scored(self, u: Tensor) -> "_Scored":
        """Return what the site is scored by: p(x) |dx / du| = p(u), which no small scale rounds away."""
        return _Scored(self.law.to_event(self.event), u)


class _Scored(dist.TorchDistribution):
    """The law of u, at this u, in the place of the law of x."""

    arg_constraints = {}  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]

    def __init__(self, law: Any, u: Tensor) -> None:
        self.law, self.u = law, u
        super().__init__(law.batch_shape, law.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        return self.law.support

    def log_prob(self, value: Tensor) -> Tensor:
        return self.law.log_prob(self.u)


class _Recentred(Messenger):
    """Give sites their own coordinates, for the handler that turns a flat vector into values."""

    def __init__(self, layout: Layout, names: tuple[str, ...], centred: Tensor) -> None:
        super().__init__()
        self.places = {site.name: site for site in layout.sites if site.name in names}
        self.centred = centred

    def _pyro_sample(self, msg: Any) -> None:
        site = self.places.get(msg["name"])
        if site is None or msg["is_observed"] or location_scale(msg["fn"]) is None:
            return
        c = self.centred[site.start : site.stop].reshape(site.free)
        msg["infer"] = {**msg["infer"], "coordinates": _Own(msg["fn"], c)}


class _Parameters(Messenger):
    """Note location and scale of every latent site that has them, of the site's own shape."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.shapes = {site.name: site.free for site in layout.sites}
        self.found: dict[str, tuple[Tensor, Tensor]] = {}

    def _pyro_sample(self, msg: Any) -> None:
        shape, parts = self.shapes.get(msg["name"]), location_scale(msg["fn"])
        if shape is None or parts is None or msg["is_observed"]:
            return
        if parts[0].loc.shape == parts[0].scale.shape == shape:  # enumeration makes it wider: one for each value
            self.found[msg["name"]] = parts[0].loc, parts[0].scale


def location_scale(fn: Any) -> tuple[Any, bool, int] | None:
    """The location-scale family under a site's law, whether its exponential is taken, and its event axes; or None."""
    event = 0
    while isinstance(fn, dist.Independent):
        event, fn = event + fn.reinterpreted_batch_ndims, fn.base_dist
    outer = isinstance(fn, dist.LogNormal) or (
        type(fn) is dist.TransformedDistribution and [type(t) for t in fn.transforms] == [ExpTransform]
    )
    family = fn.base_dist if outer else fn
    return (family, outer, event) if type(family) in FAMILIES else None


def _inside(program: Callable[..., Any], handler: Messenger) -> Callable[..., Any]:
    """The program with a handler outside its own handlers, but inside all others."""

    def inner(*args: Any, **kwargs: Any) -> None:
        with handler:
            program(*args, **kwargs)

    return inner


def _flat(layout: Layout, values: Mapping[str, Tensor], rest: float, like: Tensor) -> Tensor:
    """One vector, (dim,), of the sites' values; `rest` where a site has none."""
    parts = [values.get(s.name, torch.full_like(like[s.start : s.stop], rest)).reshape(-1) for s in layout.sites]
    return torch.cat(parts)
