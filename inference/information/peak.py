"""A point as the peak of what was maximised: its curvature, its rows' scores, and how the objective falls from it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from inference.base import Fit, Unsupported, conditioned, fresh
from inference.density import Density
from inference.density.program import constrained
from inference.density.rows import likelihood, weighed
from inference.optimum.lbfgs import maximise
from inference.optimum.summit import flat
from inference.pointwise import pointwise

Kind = Literal["observed", "sandwich"]

STATIONARY = 1e-4  # nats that Newton's step may still promise at what is called a peak
FAR = 1e-2  # of a coordinate: how far Newton's step may lead
STEP = 1e-5  # of a coordinate's sd, to the sides, for a row's score
WIDEST = 1000  # coordinates; a larger Hessian costs more than it tells
REACH = 20.0  # sds within which a profile is followed


@dataclass
class Peak:
    """A point, the density that it is the peak of, and its curvature; to be entered, for a clean slate."""

    fit: Fit
    slate: Any
    density: Any = None
    x: Any = None
    hessian: Any = None
    evaluators: dict[int, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, fit: Fit) -> "Peak":
        if not fit.draws or {value.shape[:2].numel() for value in fit.draws.values()} != {1}:
            raise Unsupported(f"{fit.method} gave draws, whose spread says how sure they are; this is for points")
        return cls(fit, fresh(fit.model, fit.args, fit.kwargs, seed=int(fit.info.get("seed", 0))))

    def __enter__(self) -> "Peak":
        model, args, kwargs = self.slate.__enter__(), self.fit.args, self.fit.kwargs
        try:
            program = conditioned(model)
            if self.fit.info.get("weight") is not None:
                program = weighed(program, args, kwargs, self.fit.info["weight"])
            if not self.fit.info.get("prior", True):
                program = likelihood(program, args, kwargs)
            jacobian = bool(self.fit.info.get("jacobian", False))
            self.density = Density.of(program, args, kwargs, jacobian=jacobian)
            self._look()
        except BaseException as error:
            self.slate.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        self.slate.__exit__(*error)

    def _look(self) -> None:
        """Find the point in the density, and refuse what is no regular peak."""
        density = self.density
        if density.dim > WIDEST:
            raise Unsupported(f"{density.dim} coordinates are more than {WIDEST}: their Hessian takes too long")
        self.x = density.unconstrain({name: value[0, 0] for name, value in self.fit.draws.items()})
        self.hessian = density.hessian(self.x).detach()
        level = flat(density, self.hessian)
        if level is not None:
            raise Unsupported(f"no regular peak: the objective does not fall along site {level.site!r}, or has a kink")
        grad = density.value_and_grad(self.x)[1]
        promise = torch.linalg.solve(-self.hessian, grad)
        far = promise.abs() / (1 + self.x.abs())  # an edge is far away in unconstrained coordinates
        if float(grad @ promise) / 2 > STATIONARY or float(far.max()) > FAR:
            worst = int(far.argmax())
            name = next(site.name for site in density.layout.sites if site.start <= worst < site.stop)
            raise Unsupported(f"no regular peak: the slope along site {name!r} is not zero there, as at an edge")

    def covariance(self, kind: Kind) -> Tensor:
        """Return that of the point around the truth, (dim, dim)."""
        bread = torch.cholesky_inverse(torch.linalg.cholesky(-self.hessian))
        if kind == "observed":
            return bread
        if kind != "sandwich":
            raise ValueError(f"kind is 'observed' or 'sandwich'; got {kind!r}")
        scores = self._scores(bread.diagonal().sqrt())  # (N, dim)
        weight = self.fit.info.get("weight")
        heavy = scores if weight is None else scores * torch.as_tensor(weight).to(scores)[:, None]
        return bread @ (scores.mT @ heavy) @ bread

    def _scores(self, scale: Tensor) -> Tensor:
        """Each row's derivative of its log likelihood, (N, dim), from both sides of the point."""
        step = STEP * scale.diag()
        around = torch.cat([self.x + step, self.x - step])  # (2 dim, dim)
        values = self.density.constrain(around)
        draws = {name: values[name][None] for name in self.fit.draws}
        found = pointwise(replace(self.fit, draws=draws))
        rows = []
        for name, value in found.log_likelihood.items():
            if "rows" not in found.dims[name]:
                raise Unsupported(f"the rows of {name!r} depend on one another, so none has a score of its own")
            axis = 2 + found.dims[name].index("rows")
            rows.append(value[0].movedim(axis - 1, 1).flatten(2).sum(-1) if value.ndim > 3 else value[0])
        total = torch.stack(rows).sum(0)  # (2 dim, N)
        above, below = total.split(len(self.x))
        return ((above - below) / (2 * STEP * scale[:, None])).mT

    def slopes(self) -> Mapping[str, tuple[Tensor, torch.Size]]:
        """Return the derivative of each site's values by the coordinates, (*, dim), and the site's shape."""
        names = [*(site.name for site in self.density.layout.sites), *self.density.layout.deterministic]
        values = constrained(self.density.program, self.density.layout)

        def read(x: Tensor) -> tuple[Tensor, ...]:
            return values(x, self.density.args, self.density.kwargs)

        slopes = torch.autograd.functional.jacobian(read, self.x)
        shapes = [value.shape for value in read(self.x)]
        return {n: (j.reshape(-1, len(self.x)), s) for n, j, s in zip(names, slopes, shapes, strict=True)}

    def place(self, site: str, index: tuple[int, ...]) -> int:
        """Return the coordinate that one number of a site is a function of."""
        slope = self.slopes()[site][0].reshape(*self.slopes()[site][1], -1)[index]
        moved = (slope != 0).nonzero()[:, 0].tolist()
        if slope.ndim != 1 or len(moved) != 1:
            raise Unsupported(f"{site}{list(index)} is not one number that moves one coordinate; profile another")
        return moved[0]

    def end(self, place: int, step: float, fall: float) -> Tensor:
        """Return the point at which the profile along a coordinate has fallen so far, on one side."""
        top, near, far, reach, x = float(self.density.log_prob(self.x).detach()), 0.0, math.inf, 1.0, self.x
        for _ in range(60):
            value, found = self.held([place], self.x.new_tensor([[reach * step]]), x[None])
            x = found[0]
            near, far = (reach, far) if top - float(value) < fall else (near, reach)
            if reach > REACH:
                raise Unsupported("the profile does not fall far enough on one side: the data leave it open")
            if far - near < 1e-7 * far:
                break
            reach = 2 * reach if far == math.inf else (near + far) / 2
        return x

    def held(self, places: list[int], steps: Tensor, begin: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the highest values with some coordinates so far from the peak's, steps (R, P); and where, (R, dim).

        begin: where to climb from, (R, dim); by default where the others are best if all is quadratic.
        """
        held = torch.zeros(len(self.x), dtype=torch.bool)
        held[places] = True
        x, batched = self.x.repeat(len(steps), 1) if begin is None else begin.clone(), self._batched(len(steps))
        x[:, places] = self.x[places] + steps
        if bool(held.all()):
            return batched(x)[0], x
        if begin is None:
            x[:, ~held] -= torch.linalg.solve(
                self.hessian[~held][:, ~held], self.hessian[~held][:, places] @ steps.mT
            ).mT

        def value_and_grad(free: Tensor) -> tuple[Tensor, Tensor]:
            whole = x.clone()
            whole[:, ~held] = free
            value, grad = batched(whole)
            return value, grad[:, ~held]

        found = maximise(value_and_grad, x[:, ~held], num_steps=200, tol=1e-10)
        x[:, ~held] = found.x
        return found.log_prob, x

    def _batched(self, number: int) -> Any:
        """Value and gradient at so many points."""
        if number not in self.evaluators:
            self.evaluators[number] = self.density.batched(number, compile=False)
        return self.evaluators[number]
