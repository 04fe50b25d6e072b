"""A Pyro program as log p over one flat unconstrained vector, discrete sites summed out; evaluated eagerly.

The program runs once to learn its sites, and again for every evaluation: slow and always right. What is
fast is traced from this, and checked against it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta, ImproperUniform
from pyro.infer import config_enumerate
from pyro.infer.mcmc.util import TraceEinsumEvaluator
from pyro.infer.util import is_validation_enabled  # noqa: F401  (asserts the Pyro layout that this file relies on)
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import biject_to, constraints

from inference.base import Unsupported


@dataclass(frozen=True)
class Site:
    """One continuous latent site and its place in the flat vector."""

    name: str
    shape: torch.Size  # of the value in the model
    free: torch.Size  # of the unconstrained value
    start: int
    dims: tuple[str, ...]  # one name an axis of `shape`

    @property
    def stop(self) -> int:
        return self.start + self.free.numel()


@dataclass(frozen=True)
class Layout:
    """What the program's sites are: continuous latents in order, summed-out ones, computed ones."""

    sites: tuple[Site, ...]
    enumerated: tuple[str, ...]
    deterministic: tuple[str, ...]
    max_plate_nesting: int

    @property
    def dim(self) -> int:
        return self.sites[-1].stop if self.sites else 0


class Unconstrained(Messenger):
    """Give each continuous latent site its value from a flat vector, and add up log |det Jacobian|.

    The transform is that of the site's support at this very value, so a support may depend on other sites; or one
    that the site was given by a handler inside, together with the law of its coordinates (`centring.py`).
    """

    def __init__(self, layout: Layout, x: Tensor) -> None:
        super().__init__()
        self.places = {site.name: site for site in layout.sites}
        self.x = x
        self.log_det: Tensor | float = 0.0

    def _pyro_sample(self, msg: Any) -> None:
        site = self.places.get(msg["name"])
        if site is None or msg["is_observed"]:
            return
        free = self.x[site.start : site.stop].reshape(site.free)
        if (own := msg["infer"].get("coordinates")) is not None:
            msg["value"], msg["fn"], msg["done"] = own(free), own.scored(free), True
            return
        transform = transform_of(msg["fn"], msg["name"])
        value = transform(free)
        self.log_det = self.log_det + transform.log_abs_det_jacobian(free, value).sum()
        msg["value"], msg["done"] = value, True


class SomeValue(Messenger):
    """Give improper sites, which cannot be drawn, the value at zero of their unconstrained coordinates."""

    def _pyro_sample(self, msg: Any) -> None:
        fn = msg["fn"]
        while hasattr(fn, "base_dist"):
            fn = fn.base_dist
        if not isinstance(fn, ImproperUniform) or msg["is_observed"] or msg["value"] is not None:
            return
        transform = transform_of(msg["fn"], msg["name"])
        msg["value"] = transform(torch.zeros(transform.inverse_shape(msg["fn"].shape())))
        msg["done"] = True


def transform_of(fn: Any, name: str) -> Any:
    """The map from unconstrained values onto the support of a site's distribution.

    Raises: Unsupported when the support has none.
    """
    try:
        return biject_to(_of_one_component(fn.support))
    except NotImplementedError:
        raise Unsupported(f"site {name!r} ~ {type(fn).__name__} has a support that no transform reaches") from None


def read_layout(program: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]) -> Layout:
    """Run the program once and read off its sites.

    Raises: Unsupported for a discrete site that cannot be summed out, or one that only `svi` can learn.
    """
    with SomeValue():
        trace: Any = poutine.trace(poutine.block(program, hide_fn=site_is_subsample)).get_trace(*args, **kwargs)
    sites, enumerated, deterministic, start = [], [], [], 0
    for name, node in trace.nodes.items():
        if node["type"] == "param":
            raise Unsupported(f"site {name!r} is a parameter (pyro.param or pyro.module); only svi learns those")
        if node["type"] != "sample":
            continue
        if is_computed(node):
            deterministic.append(name)
        elif node["is_observed"]:
            continue
        elif node["fn"].has_enumerate_support:
            enumerated.append(name)
        elif node["fn"].support.is_discrete:
            raise Unsupported(
                f"site {name!r} ~ {type(node['fn']).__name__} is discrete without end and cannot be summed out; "
                "truncate it to a Categorical, or integrate it out by hand"
            )
        else:
            free = transform_of(node["fn"], name).inv(node["value"]).shape
            sites.append(Site(name, node["value"].shape, free, start, site_dims(node)))
            start += free.numel()
    return Layout(tuple(sites), tuple(enumerated), tuple(deterministic), _plate_nesting(trace))


def is_computed(node: Mapping[str, Any]) -> bool:
    """Is this site's value computed from others: by `pyro.deterministic`, or by a reparametrisation?"""
    law = node["fn"]
    while not isinstance(law, Delta) and hasattr(law, "base_dist"):
        law = law.base_dist
    return bool(node["infer"].get("_deterministic")) or (bool(node["is_observed"]) and isinstance(law, Delta))


def site_dims(node: Mapping[str, Any]) -> tuple[str, ...]:
    """A name for each axis: the plate's for a batch axis, `infer["event_dims"]` or `site_dim_k` for the rest."""
    value, event = node["value"], node["fn"].event_dim
    batch = value.ndim - event
    plates = {frame.dim: frame.name for frame in node["cond_indep_stack"] if frame.vectorized}
    names = [plates.get(i - batch, f"{node['name']}_dim_{i}") for i in range(batch)]
    given = list(node["infer"].get("event_dims", ()))
    rest = [f"{node['name']}_dim_{batch + i}" for i in range(event)]
    return (*names, *(given if len(given) == event else rest))


def log_density(program: Callable[..., Any], layout: Layout, jacobian: bool = True) -> Callable[..., Tensor]:
    """Return log_prob(x, args, kwargs), (): log p(constrain(x), observed) + log |det d constrain / dx|.

    Without `jacobian`, the second term is left out: the density is that of the sites' own values.
    """
    if layout.enumerated:
        first = -1 - layout.max_plate_nesting
        program = poutine.enum(config_enumerate(program), first_available_dim=first)
    program = poutine.block(program, hide_fn=site_is_subsample)

    def log_prob(x: Tensor, args: Any, kwargs: Mapping[str, Any]) -> Tensor:
        free = Unconstrained(layout, x)
        with free:
            trace = poutine.trace(program).get_trace(*args, **kwargs)
        if layout.enumerated:
            log_joint = TraceEinsumEvaluator(trace, True, layout.max_plate_nesting).log_prob(trace)
        else:
            log_joint = trace.log_prob_sum()
        return torch.as_tensor(log_joint + (free.log_det if jacobian else 0.0), dtype=x.dtype)

    return log_prob


def constrained(program: Callable[..., Any], layout: Layout) -> Callable[..., tuple[Tensor, ...]]:
    """Return values(x, args, kwargs): each latent site's value, then each computed site's."""
    names = [site.name for site in layout.sites]

    def values(x: Tensor, args: Any, kwargs: Mapping[str, Any]) -> tuple[Tensor, ...]:
        with Unconstrained(layout, x):
            trace = poutine.trace(program).get_trace(*args, **kwargs)
        return tuple(trace.nodes[name]["value"] for name in [*names, *layout.deterministic])

    return values


def unconstrain(program: Callable[..., Any], layout: Layout, args: Any, kwargs: Any, values: Any) -> Tensor:
    """Return the flat vector of these site values, (dim,)."""
    parts = {}

    class Invert(Messenger):
        def _pyro_sample(self, msg: Any) -> None:
            if msg["name"] in values and not msg["is_observed"]:
                msg["value"], msg["done"] = values[msg["name"]], True
                own = msg["infer"].get("coordinates") or transform_of(msg["fn"], msg["name"])
                parts[msg["name"]] = own.inv(msg["value"]).reshape(-1)

    with Invert(), pyro.validation_enabled(False):
        program(*args, **kwargs)
    missing = [site.name for site in layout.sites if site.name not in parts]
    if missing:
        raise ValueError(f"no value for site {', '.join(missing)}")
    return torch.cat([parts[site.name] for site in layout.sites])


def _of_one_component(support: Any) -> Any:
    """The support of a mixture's components, which torch wraps and then has no transform for."""
    wrapper = getattr(constraints, "MixtureSameFamilyConstraint", ())
    if isinstance(support, wrapper):
        return support.base_constraint
    if isinstance(support, constraints.independent) and isinstance(support.base_constraint, wrapper):
        inside = support.base_constraint.base_constraint
        return constraints.independent(inside, support.reinterpreted_batch_ndims)
    return support


def _plate_nesting(trace: Any) -> int:
    """How many batch axes the program's plates take, counted from the right."""
    dims = [f.dim for n in trace.nodes.values() if n["type"] == "sample" for f in n["cond_indep_stack"] if f.vectorized]
    depth = -min(dims) if dims else 0
    for node in trace.nodes.values():
        if node["type"] == "sample" and not math.isnan(depth):
            depth = max(depth, len(node["fn"].batch_shape))
    return depth
