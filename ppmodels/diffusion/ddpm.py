"""Denoising diffusion as a pair: the model walks from noise to data, the guide knows how the noise came."""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppmodels.base import Data
from ppmodels.diffusion.parametrisation import PREDICTIONS, Denoiser, convert
from ppmodels.diffusion.samplers import VARIANCES
from ppmodels.diffusion.schedule import Level, Schedule, cosine, linear, posterior
from ppmodels.nn.denoiser import MLPDenoiser


@dataclass(frozen=True)
class DenoisingDiffusion:
    r"""A learned way back through a fixed way of adding noise; the ELBO is the diffusion bound.

    .. math:: x_T \sim N(0, I),\; x_{t-1} \mid x_t \sim N(\mu_\theta(x_t, t), v_t I),\; x = x_0; \quad
        q(x_t \mid x_0) = N(\sqrt{\bar\alpha_t}\, x_0, (1 - \bar\alpha_t) I)

    where mu is the mean of q(x_{t-1} | x_t, x_0) at the network's x_0. The guide draws x_T first and then
    q(x_{t-1} | x_t, x): the law of the forward walk, in the model's order, so that `TraceMeanField_ELBO`
    sees every divergence in closed form.

    Latents:  x_t (N, D) for t = 1..T, no unit.
    Learned:  network, (x_t, t) to the noise, the origin, or v.
    Observed: x (N, D), standardised.
    Source:   Ho, Jain and Abbeel (2020), arXiv:2006.11239, equations 1 to 7.
    """

    dim: int = 2
    steps: int = 8
    schedule: str = "cosine"  # or linear, of the total noise that 1000 steps have, for 25 steps or more
    prediction_type: str = "v"
    variance: str = "beta"  # of the model's steps; or posterior
    hidden: int = 64
    layers: int = 3
    observed: ClassVar[tuple[str, ...]] = ("x",)

    def __post_init__(self):
        if min(self.dim, self.steps, self.hidden, self.layers) < 1:
            raise ValueError("dim, steps, hidden and layers must be positive")
        if self.schedule not in ("cosine", "linear") or self.variance not in VARIANCES:
            raise ValueError(f"no schedule {self.schedule!r} or variance {self.variance!r}; see the fields")
        if self.prediction_type not in PREDICTIONS:
            raise ValueError(f"no prediction_type {self.prediction_type!r}; there are: {', '.join(PREDICTIONS)}")
        if self.schedule == "linear" and self.steps < 25:
            raise ValueError(f"a linear schedule needs 25 steps to reach noise; got {self.steps}")

    @cached_property
    def network(self) -> nn.Module:
        """(N, D), (N,) -> (N, D)."""
        return MLPDenoiser(self.dim, self.hidden, self.layers)

    @cached_property
    def noise(self) -> Schedule:
        """Signal and noise at every t."""
        if self.schedule == "cosine":
            return cosine(self.steps)
        return linear(self.steps, 0.1 / self.steps, 20 / self.steps)

    @property
    def denoiser(self) -> Denoiser:
        """The network as the samplers take it."""
        return Denoiser(self.network, self.noise, self.prediction_type)

    def inputs(self, rows: int) -> dict[str, Tensor]:
        return {}

    def model(self, data: Data) -> None:
        pyro.module("network", self.network)
        with data.plate():
            x = pyro.sample(f"x_{self.steps}", dist.Normal(torch.zeros(self.dim), 1.0).to_event(1))
            for t, s in pairwise(self._levels):
                law = posterior(s, t)
                told = self.network(x, torch.full_like(x[..., 0], t.t))  # (N, D)
                x0 = convert(told, x, t.alpha, t.sigma, self.prediction_type, "x0")
                spread = law.variance if self.variance == "posterior" and s.t > 0 else law.forward
                step = dist.Normal(law.of_x * x + law.of_x0 * x0, spread**0.5).to_event(1)
                x = pyro.sample(f"x_{s.t}" if s.t > 0 else "x", step)

    def guide(self, data: Data) -> None:
        x0, (last, *_) = data.observed["x"], self._levels
        with data.plate():
            x = pyro.sample(f"x_{self.steps}", dist.Normal(last.alpha * x0, last.sigma).to_event(1))
            for t, s in pairwise(self._levels[:-1]):
                law = posterior(s, t)
                step = dist.Normal(law.of_x * x + law.of_x0 * x0, law.variance**0.5).to_event(1)
                x = pyro.sample(f"x_{s.t}", step)

    @cached_property
    def _levels(self) -> list[Level]:
        """T, T - 1, ..., 0."""
        return self.noise.grid(self.steps)
