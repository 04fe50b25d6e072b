"""From unconstrained draws to the sites' values: latent sites, and those that the program computes from them."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inference.density.batching import batch_last
from inference.density.executor import close, one_line
from inference.density.graph import Graph, trace
from inference.density.inputs import no_validation, rebuild, tensors_of
from inference.density.program import Layout, Site, constrained

log = logging.getLogger("inference")

ROWS = 8192  # draws turned into site values at once


@dataclass(frozen=True)
class SiteMap:
    """values(x, *tensors) of the named sites; graph: the same, traced, where that could be done.

    parts: the sites, where every value is a part of x as it stands, as of real sites; then nothing is traced.
    """

    names: tuple[str, ...]
    values: Callable[..., tuple[Tensor, ...]]
    graph: Graph | None
    parts: tuple[Site, ...] = ()

    def __call__(self, x: Tensor, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the sites' values at x, (n, dim): each (n, *site)."""
        if self.parts:
            return {site.name: x[:, site.start : site.stop].reshape(len(x), *site.shape) for site in self.parts}
        parts = []
        for block in x.split(ROWS):
            if self.graph is None:
                rows = [self.values(row, *tensors) for row in block]
                parts.append([torch.stack(each) for each in zip(*rows, strict=True)])
            else:
                last = batch_last(self.graph.varying, 1)(block.mT, *self.graph.fixed(*tensors))
                parts.append([value.movedim(-1, 0) for value in last])
        values = [torch.cat(each) for each in zip(*parts, strict=True)]
        return dict(zip(self.names, values, strict=True))

    def agrees(self, points: Tensor, tensors: Sequence[Tensor]) -> bool:
        """Are these values those of the program at fresh points, (n, dim)?"""
        found = self(points, tensors)
        for i, x in enumerate(points):
            truth = self.values(x, *tensors)
            if not all(close(found[name][i], value) for name, value in zip(self.names, truth, strict=True)):
                return False
        return True


def site_map(
    program: Callable[..., Any], layout: Layout, args: Any, kwargs: Mapping[str, Any], points: Tensor
) -> SiteMap:
    """Trace the map of all sites whose values x alone decides; not so what hangs on a summed-out site."""
    names, tensors = [*(site.name for site in layout.sites), *layout.deterministic], tensors_of(args, kwargs)
    function = constrained(program, layout)

    def everything(x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad(), no_validation():
            return function(x, *rebuild(args, kwargs, tensors))

    first, *others = (everything(points[0], *tensors) for _ in range(4 if layout.enumerated else 2))
    steady = [all(a.shape == b.shape and close(a, b) for b in rest) for a, *rest in zip(first, *others, strict=True)]
    kept = tuple(name for name, same in zip(names, steady, strict=True) if same)

    def values(x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(v for v, same in zip(everything(x, *tensors), steady, strict=True) if same)

    if not layout.deterministic and all(steady) and all(site.shape == site.free for site in layout.sites):
        real = SiteMap(kept, values, None, layout.sites)
        if real.agrees(points, tensors):
            return real
    try:
        traced = SiteMap(kept, values, trace(values, [points[0]], tensors))
        if traced.agrees(points, tensors):
            return traced
        why = "the traced graph differs from the program"
    except Exception as error:
        why = one_line(error)
    log.info("sites are computed draw by draw: %s", why)
    return SiteMap(kept, values, None)
