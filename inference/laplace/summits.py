"""A density's summit, and the Gaussian around it, under the fields that it was climbed with or under others."""

import dataclasses
import math
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from inference.base import Unsupported, conditioned
from inference.density import Density
from inference.density.executor import loop
from inference.laplace.gaussians import Gaussian
from inference.laplace.posterior import Posterior
from inference.laplace.structures import Curvature
from inference.optimum import summit
from ppmodels.base import HasNetwork


@dataclasses.dataclass(frozen=True)
class Mode:
    """A summit of a model's density, and which part of the curvature there is kept.

    structure, size: as `fit` takes them. known: the curvature at this point under other fields. lean: a faster way
    to the density, where this model has one.
    """

    model: Any
    density: Density
    top: summit.Summit
    structure: str
    size: int | None
    known: Curvature | None = None
    lean: Posterior | None = None

    @classmethod
    def of(cls, model: Any, density: Density, generator: Any, structure: str, size: int | None, options: Any) -> "Mode":
        """Climb to it from random starts."""
        lean = Posterior.of(model, density)
        evaluate = loop(lean.value_and_grad) if lean is not None and options["num_restarts"] == 1 else None
        top = summit.find(density, generator, evaluate=evaluate, **options)
        return cls(model, density, top, structure, size, lean=lean)

    @property
    def x(self) -> Tensor:
        """The mode, (dim,)."""
        return self.top.x

    @cached_property
    def curvature(self) -> Curvature:
        """Minus the Hessian here, or what stands for it."""
        return Curvature(self.density, self.x, self.model, self.size, self.top.hessian, self.known)

    @cached_property
    def gaussian(self) -> Gaussian:
        """The Gaussian of this structure."""
        return self.curvature.around(self.structure)

    def under(self, model: Any) -> "Mode":
        """Return the same point under other fields, whether or not it is a mode there."""
        density = dataclasses.replace(self.density, program=conditioned(model), _made={})
        hessian = None if self.top.hessian is None else density.hessian(self.x).detach()
        lean = None if self.lean is None else Posterior.told(model, density)
        with torch.no_grad():
            log_prob = float((lean or density).log_prob(self.x))
        top = dataclasses.replace(self.top, log_prob=log_prob, hessian=hessian)
        return Mode(model, density, top, self.structure, self.size, self.known or self.curvature, lean)

    def climbed(self, generator: torch.Generator, options: dict[str, Any]) -> "Mode":
        """Return the mode that one climb from here reaches."""
        stretch = self.gaussian.draw if self.regular and self.gaussian.free == len(self.x) else None
        options = options | {"start": self.x[None], "stretch": stretch}
        evaluate = None if self.lean is None else loop(self.lean.value_and_grad)
        top = summit.find(self.density, generator, evaluate=evaluate, **options)
        return dataclasses.replace(self, top=top, known=None)

    @cached_property
    def regular(self) -> bool:
        """Whether there is a Gaussian; at a point that is no mode there may be none."""
        try:
            return math.isfinite(self.gaussian.half_log_det())
        except Unsupported:
            return False

    @cached_property
    def volume(self) -> float:
        """The logarithm of the Gaussian's volume, coordinates that it holds fixed taken as known; -inf without one."""
        if not self.regular:
            return -math.inf
        return 0.5 * self.gaussian.free * math.log(2 * math.pi) - self.gaussian.half_log_det()

    @property
    def log_evidence(self) -> float:
        """Laplace's log p(D)."""
        return self.top.log_prob + self.volume

    def weights(self, model: HasNetwork) -> dict[str, Tensor]:
        """Return the network's weights at the mode, by site."""
        values = self.density.constrain(self.x[None])
        return {name: values[name][0].detach() for name, _ in model.module.named_parameters()}

    def path(self) -> Tensor:
        """Return the log density along the best climb."""
        ascent, best = self.top.ascent, self.top.best
        return ascent.values[best, : int(ascent.steps[best]) + 1]

    def facts(self) -> dict[str, Any]:
        """Return what is known of the climbs."""
        found = {"log_density": self.top.log_prob, "decrement": self.top.decrement}
        found |= {"grad_norm": float(self.top.grad.norm()), "num_modes": summit.num_modes(self.top.ascent)}
        return found | {"restarts": summit.restarts(self.top.ascent), "log_evidence": self.log_evidence}
