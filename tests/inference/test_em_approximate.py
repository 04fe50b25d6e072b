"""An E step that is not exact: the bound still climbs, and the likelihood may fall. Against quadrature."""

import math
from dataclasses import dataclass
from typing import ClassVar

import pyro
import pyro.distributions as dist
import pytest
import torch

from inference import em
from inference.em import PATIENCE
from inference.optimum.lbfgs import maximise
from ppmodels.base import Data

pytestmark = pytest.mark.usefixtures("double_precision")
GRID = torch.linspace(-8, 8, 1601, dtype=torch.float64)


@dataclass(frozen=True)
class Squares:
    """x_n ~ N(theta z_n^2, s^2), z_n ~ N(0, 1): two z explain a row, and q(z_n) is the best single normal."""

    noise: float = 1.0
    begin: float = 1.0
    climbs: ClassVar[bool] = False
    approximate: ClassVar[str] = "one normal where there are two modes"
    observed: ClassVar[tuple[str, ...]] = ("x",)

    def inputs(self, rows):
        return {}

    def model(self, data):
        theta = pyro.sample("theta", dist.LogNormal(0.0, 1.0))
        with data.plate():
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(theta * z**2, self.noise))

    def start(self, data):
        return {"theta": torch.tensor(self.begin)}

    def e_step(self, theta, data):
        """Return mean and log variance of q, (N, 2), from the right-hand mode, and the exact log likelihood."""
        x = data.observed["x"]

        def objective(q):
            with torch.enable_grad():
                q = q.detach().requires_grad_()
                value = self._per_row(q, theta["theta"], x)
                return value.detach(), torch.autograd.grad(value.sum(), q)[0]

        start = torch.stack([(x.clamp(min=0.1) / theta["theta"]).sqrt(), torch.full_like(x, -3.0)], -1)
        return maximise(objective, start, tol=1e-14).x, self.log_likelihood(theta["theta"], x)

    def m_step(self, q, data, prior):
        mean, variance = q[:, 0], q[:, 1].exp()
        second, fourth = mean**2 + variance, mean**4 + 6 * mean**2 * variance + 3 * variance**2
        return {"theta": (data.observed["x"] * second).sum() / fourth.sum()}

    def bound(self, q, theta, data):
        return self._per_row(q, theta["theta"], data.observed["x"]).sum()

    def log_likelihood(self, theta, x):
        """By the trapezoid rule over z."""
        joint = dist.Normal(0.0, 1.0).log_prob(GRID) + dist.Normal(theta * GRID**2, self.noise).log_prob(x[:, None])
        return (joint.logsumexp(-1) + math.log(float(GRID[1] - GRID[0]))).sum()

    def _per_row(self, q, theta, x):
        """E_q log p(x, z) - E_q log q(z), (N,)."""
        mean, variance = q[:, 0], q[:, 1].exp()
        second, fourth = mean**2 + variance, mean**4 + 6 * mean**2 * variance + 3 * variance**2
        misfit = (x**2 - 2 * theta * x * second + theta**2 * fourth) / (2 * self.noise**2)
        entropy = 0.5 * (math.log(2 * math.pi) + 1 + q[:, 1])
        return entropy - misfit - second / 2 - math.log(2 * math.pi) - math.log(self.noise)


def test_the_bound_never_falls_and_the_likelihood_does():
    z = torch.randn(60)
    x = 3.0 * z**2 + torch.randn(60)
    data = Data(60, observed={"x": x})
    grid = torch.linspace(0.5, 6.0, 1101)
    scores = torch.stack([Squares().log_likelihood(theta, x) for theta in grid])
    best = float(grid[scores.argmax()])  # where the exact likelihood is highest: EM with the exact E step stays there
    fit = em.fit(Squares(begin=best), data, num_restarts=1, num_steps=PATIENCE - 1, tol=1e-12)
    assert fit.trace["bound"].diff().min() > -1e-9
    assert fit.trace["log_likelihood"].diff().min() < -1e-6
    assert fit.trace["log_likelihood"][-1] < fit.trace["log_likelihood"][0]
    assert (fit.trace["bound"] <= fit.trace["log_likelihood"] + 1e-9).all()
    gap = fit.trace["log_likelihood"] - fit.trace["bound"]
    assert gap.min() > 0
    assert "the E step is approximate: one normal where there are two modes" in fit.info["message"]
    longer = em.fit(Squares(begin=best), data, num_restarts=1, num_steps=3 * PATIENCE, tol=1e-12)
    assert not longer.info["converged"]  # steps that only led away are not the answer
    assert longer.trace["log_likelihood"][-1] == fit.trace["log_likelihood"].max()
