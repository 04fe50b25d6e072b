"""A network's log density with the laws of its prior made once: half the cost of telling its story at every step."""

from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import Independent, Normal

from inference.density import Density, Site
from inference.density.inputs import no_validation
from ppmodels.base import Data, HasNetwork


@dataclass(frozen=True)
class Posterior:
    """log N(w; loc, sd^2) + log p(y | f(x; w)) of a flat w, loc and sd, (dim,)."""

    model: HasNetwork
    data: Data
    sites: tuple[Site, ...]
    loc: Tensor
    sd: Tensor

    @classmethod
    def of(cls, model: Any, density: Density) -> "Posterior | None":
        """Return it where all latents are weights with Gaussian priors, and it is the density; else None."""
        sites = density.layout.sites
        if not isinstance(model, HasNetwork) or any(site.shape != site.free for site in sites):
            return None
        if {site.name for site in sites} != {name for name, _ in model.module.named_parameters()}:
            return None
        found = cls.told(model, density)
        return found if found is not None and found._is(density) else None

    @classmethod
    def told(cls, model: HasNetwork, density: Density) -> "Posterior | None":
        """Return it for a model of which only fields have changed since it was compared; None without Gaussians."""
        with no_validation():
            trace: Any = poutine.trace(model.weights).get_trace()
        laws = [_gaussian(trace.nodes[site.name]["fn"]) for site in density.layout.sites]
        gaussian = [law for law in laws if law is not None]
        if len(gaussian) < len(laws):
            return None
        loc, sd = (torch.cat([getattr(law, name).flatten() for law in gaussian]) for name in ("loc", "scale"))
        return cls(model, density.args[0], density.layout.sites, loc, sd)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log density, (), and its gradient, (dim,), at x, (dim,)."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = self.log_prob(x)
            (grad,) = torch.autograd.grad(value, x)
        return value.detach(), grad

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log density, (), at x, (dim,)."""
        weights = {site.name: x[site.start : site.stop].view(site.shape) for site in self.sites}
        with no_validation():
            f = self.model.outputs(weights, self.data)
            told = pyro.condition(self.model.observe, data=dict(self.data.observed))
            trace: Any = poutine.trace(told).get_trace(f, self.data)
            prior = torch.distributions.Normal(self.loc, self.sd).log_prob(x).sum()
            return prior + trace.log_prob_sum()

    def _is(self, density: Density) -> bool:
        """Does the density have this value and gradient, where the prior has its mass?"""
        x = self.loc + self.sd * torch.linspace(-1.0, 1.0, density.dim, dtype=self.loc.dtype, device=self.loc.device)
        pairs = zip(self.value_and_grad(x), density.value_and_grad(x), strict=True)
        return all(torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5) for ours, theirs in pairs)


def _gaussian(law: Any) -> Normal | None:
    """The normal distribution inside, all of whose elements are independent."""
    while isinstance(law, Independent):
        law = law.base_dist
    return law if isinstance(law, Normal) else None
