"""What a hidden state emits when it is a regression: counts or spikes whose log rate or log odds are linear."""

import math
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import Distribution
from torch import Tensor

from ppmodels.population import _emissions
from ppmodels.population._counts import LARGEST

STEPS = 50
GAIN = 1e-12


@dataclass(frozen=True)
class Regressions:
    """weights (S, N, F + 1), the constant first; x (R, T, F)."""

    weights: Tensor
    x: Tensor
    family: str
    bin_size: float
    gaps: bool

    @property
    def design(self) -> Tensor:
        """Features after a constant 1, (R, T, F + 1)."""
        return torch.cat([torch.ones_like(self.x[..., :1]), self.x], -1)

    def score(self, y: Tensor) -> Tensor:
        """Return log p(y_t | state), (R, T, S), of y (R, T, N)."""
        missing = y.isnan() if self.gaps else None
        values = y if missing is None else torch.where(missing, 0.0, y)
        eta = self._eta(self.design, self.weights)  # (R, T, S, N)
        each = values[..., None, :] * eta - self._cumulant(eta)
        if self.family == "poisson":
            each = each - torch.lgamma(values + 1)[..., None, :]
        return (each if missing is None else torch.where(missing[..., None, :], 0.0, each)).sum(-1)

    def law(self, states: Tensor) -> Distribution:
        """Return the law of y (R, T, N) along paths of states (R, T)."""
        eta = self._eta(self.design, self.weights)  # (R, T, S, N)
        index = states[..., None, None].expand(*states.shape, 1, eta.shape[-1])
        eta = eta.expand(*states.shape, *eta.shape[-2:]).gather(-2, index)[..., 0, :]
        return dist.Poisson(self._cumulant(eta)) if self.family == "poisson" else dist.Bernoulli(logits=eta)

    def maximise(self, state: Tensor, y: Tensor, priors: dict[str, Any] | None) -> Tensor:
        """Return the weights of the highest expected log likelihood, by Newton's method from these.

        state: p(z_t | y), (R, T, S). y (R, T, N).
        """
        missing = y.isnan()
        values = torch.where(missing, 0.0, y).flatten(0, 1).mT  # (N, B)
        share = state.flatten(0, 1).mT[:, None] * (~missing).to(y).flatten(0, 1).mT  # (S, N, B)
        law = None if priors is None else priors["weights"].base_dist
        design, weights = self.design.flatten(0, 1), self.weights
        objective = _objective(self, design, values, share, law)
        value = there = objective(weights)
        for _ in range(STEPS):
            step, left = self._newton(design, values, share, weights, law)
            size = torch.ones_like(left)
            for _ in range(STEPS):
                there = objective(weights + size[..., None] * step)
                short = ~(there >= value + 0.1 * size * left - 1e-13 * value.abs())
                if not short.any():
                    break
                size = torch.where(short, size / 2, size)
            weights, value = weights + size[..., None] * step, there
            if bool((left <= GAIN * (1 + value.abs())).all()):
                break
        return weights

    def _newton(
        self, design: Tensor, values: Tensor, share: Tensor, weights: Tensor, law: Any
    ) -> tuple[Tensor, Tensor]:
        """Each regression's step, (S, N, F + 1), and twice what it would gain, (S, N)."""
        eta = weights @ design.mT + self._shift  # (S, N, B)
        mean = eta.exp() if self.family == "poisson" else eta.sigmoid()
        curve = share * (mean if self.family == "poisson" else mean * (1 - mean))
        grad = (share * (values - mean)) @ design
        hessian = torch.einsum("snb,bp,bq->snpq", curve, design, design)
        eye = torch.eye(design.shape[1], dtype=design.dtype, device=design.device)
        hessian = hessian + 1e-10 * _mean_diagonal(hessian).clamp_min(1e-10) * eye
        if law is not None:
            grad, hessian = grad - (weights - law.loc) / law.scale**2, hessian + eye / law.scale[..., None] ** 2
        step = torch.linalg.solve(hessian, grad[..., None])[..., 0]
        step = step / step.norm(dim=-1, keepdim=True).clamp_min(5.0) * 5.0  # where a state has hardly any bins
        return step, (grad * step).sum(-1)

    @property
    def _shift(self) -> float:
        return math.log(self.bin_size) if self.family == "poisson" else 0.0

    def _eta(self, design: Tensor, weights: Tensor) -> Tensor:
        return torch.einsum("...p,snp->...sn", design, weights) + self._shift

    def _cumulant(self, eta: Tensor) -> Tensor:
        """The mean count, or minus the log probability of no spike."""
        if self.family == "poisson":
            return eta.clamp_max(math.log(LARGEST)).exp()
        return torch.nn.functional.softplus(eta)


def start(model: Any, y: Tensor) -> Tensor:
    """Return weights (S, N, F + 1) to start from: constants of some bins' counts, and random slopes."""
    rate = _emissions.start(model.emission, y, model.states, model.bin_size)
    constant = rate.log() if model.emission == "poisson" else rate.logit()
    return torch.cat([constant[..., None], 0.5 * torch.randn(*rate.shape, model.features).to(rate)], -1)


def center(model: Any) -> Tensor:
    """Return the prior mean of the weights, (S, N, F + 1): the constant of the model's rate, and no slopes."""
    share = min(model.rate * model.bin_size, 0.5)
    constant = math.log(model.rate) if model.emission == "poisson" else math.log(share / (1 - share))
    return torch.nn.functional.pad(torch.full((model.states, model.neurons, 1), constant), (0, model.features))


def _objective(model: Regressions, design: Tensor, values: Tensor, share: Tensor, law: Any) -> Any:
    """The expected log likelihood, and log prior, of each regression, (S, N), less constants."""

    def objective(weights: Tensor) -> Tensor:
        eta = weights @ design.mT + model._shift
        value = (share * (values * eta - model._cumulant(eta))).sum(-1)
        return value if law is None else value + law.log_prob(weights).sum(-1)

    return objective


def _mean_diagonal(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
