"""What EM climbs: the objective at a theta, the step from it, and its unconstrained coordinates."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import biject_to

from ppmodels.base import Data, HasEM, HasStatistics, Theta


@dataclass(frozen=True)
class Point:
    """One theta, q of the row latents under it or the sums that it gives, and what EM maximises there."""

    theta: Theta
    log_likelihood: float
    log_prior: float = 0.0
    q: Any = field(default=None, repr=False)

    @property
    def objective(self) -> float:
        return self.log_likelihood + self.log_prior


@dataclass(frozen=True)
class Problem:
    """A model's own E and M steps on one data set, with or without its prior.

    program: the model conditioned on its observed sites; read for the prior and for the sites' supports.
    """

    model: HasEM
    data: Data
    program: Callable[[Data], Any]
    prior: bool

    def at(self, theta: Theta) -> Point:
        """Return the E step at theta; the objective is -inf where it cannot be evaluated."""
        with pyro.validation_enabled(False):  # an extrapolated theta may be out of range
            q, log_likelihood = self._expect(theta, self.data)
        if not torch.isfinite(log_likelihood):
            return Point(theta, -torch.inf)
        return Point(theta, float(log_likelihood), self.log_prior(theta) if self.prior else 0.0, q)

    def step(self, point: Point) -> Theta:
        """Return the M step from a point."""
        if isinstance(self.model, HasStatistics):
            return self.model.maximise(point.q, self.prior)
        return self.model.m_step(point.q, self.data, self.prior)

    def bound(self, point: Point, theta: Theta) -> float:
        """Return the lower bound on log p(x | theta) that the posterior at a point gives."""
        q = point.q if point.q is not None else self._expect(point.theta, self.data)[0]
        if not isinstance(self.model, HasStatistics):
            return float(self.model.bound(q, theta, self.data))
        gained = self.model.expected_log_joint(q, theta) - self.model.expected_log_joint(q, point.theta)
        return point.log_likelihood + float(gained)

    def _expect(self, theta: Theta, data: Data) -> tuple[Any, Tensor]:
        """The E step: q, or where sums over rows are all that the M step reads, these sums."""
        return (self.model.statistics if isinstance(self.model, HasStatistics) else self.model.e_step)(theta, data)

    def log_prior(self, theta: Theta) -> float:
        """Return log p(theta), the sum over the sites that theta names."""
        nodes = self._sites(theta)
        return float(sum(nodes[name]["fn"].log_prob(theta[name]).double().sum() for name in theta))

    def flatten(self, theta: Theta) -> Tensor:
        """Return theta in unconstrained coordinates, (F,), in float64."""
        return torch.cat([self._transforms[name].inv(theta[name].double()).reshape(-1) for name in theta])

    def unflatten(self, flat: Tensor, like: Theta) -> Theta:
        """Return the theta of these unconstrained coordinates."""
        theta, start = {}, 0
        for name, value in like.items():
            transform = self._transforms[name]
            shape = transform.inverse_shape(value.shape)
            stop = start + shape.numel()
            theta[name], start = transform(flat[start:stop].reshape(shape)).to(value), stop
        return theta

    @cached_property
    def _transforms(self) -> dict[str, Any]:
        """From the line to the support of each latent site."""
        latents = {n: v["fn"] for n, v in self._sites({}).items() if v["type"] == "sample" and not v["is_observed"]}
        return {name: biject_to(site.support) for name, site in latents.items() if not site.has_enumerate_support}

    def _sites(self, theta: Theta) -> Any:
        """The program's sites given theta. One row is enough: no prior looks at the rows."""
        row = self.data.plain(self.model).batch(torch.zeros(1, dtype=torch.long))
        with pyro.validation_enabled(False):
            program = poutine.block(pyro.condition(self.program, data=theta), hide_fn=site_is_subsample)
            return poutine.trace(program).get_trace(row).nodes
