"""HMC whose trajectory length is learned while warming up, by how far the chains move from their centre."""

import math

import torch
from torch import Tensor

from inference.density import Batched
from inference.mcmc import hmc
from inference.mcmc.chains import Chains, Kernel, Tuned
from inference.mcmc.plan import Plan

RATE = 0.025  # of Adam, on log(length)
DECAY = 0.95  # of Adam's mean square
AVERAGE = 0.1  # weight of a turn in the mean of log(length) that trajectories use


def kernel(batched: Batched, generator: torch.Generator, plan: Plan) -> Kernel:
    """Return HMC's transition, with `adapt` for warm-up to ask after each turn.

    It climbs ChEES = E[(|z' - E z'|^2 - |z - E z|^2)^2] / 4, z in standard coordinates and z' proposed, as a
    function of length: the distance travelled in |z - E z|^2, which no symmetry of the posterior makes seem far.

    Source: Hoffman, Radul, Sountsov (2021), An adaptive MCMC scheme for setting trajectory lengths in HMC.
    """
    return _Chees(batched, generator, plan)


class _Chees:
    """HMC that remembers its last proposals."""

    def __init__(self, batched: Batched, generator: torch.Generator, plan: Plan) -> None:
        self.transition = hmc.kernel(batched, generator, plan, self._remember)
        self.most = 2.0 ** (plan.max_tree_depth - 1)  # steps on average
        self.last: tuple[Tensor, Tensor, Tensor, Tensor, float] | None = None
        self.turns, self.square, self.weight, self.log_length, self.mean = 0, 0.0, 0.0, 0.0, 0.0

    def __call__(self, chains: Chains, tuned: Tuned, turn: int) -> tuple[Chains, dict[str, Tensor]]:
        return self.transition(chains, tuned, turn)

    def adapt(self, tuned: Tuned) -> Tuned:
        """One step of Adam, without momentum, on log(length); trajectories use its running mean."""
        assert self.last is not None
        if self.turns == 0:
            self.log_length = math.log(tuned.length)
        self.turns += 1
        slope = tuned.length * slope_of_criterion(tuned.metric.factor, *self.last)
        slope = slope if math.isfinite(slope) else 0.0
        self.square = DECAY * self.square + (1 - DECAY) * slope**2
        scale = math.sqrt(self.square / (1 - DECAY**self.turns))
        moved = self.log_length + (RATE * slope / scale if scale > 0 else 0.0)
        self.log_length = min(max(moved, math.log(tuned.step_size)), math.log(self.most * tuned.step_size))
        self.weight += AVERAGE * (1 - self.weight)
        self.mean += AVERAGE / self.weight * (self.log_length - self.mean)
        return Tuned(tuned.step_size, math.exp(self.mean), tuned.metric)

    def _remember(self, x: Tensor, proposed: Tensor, n: Tensor, accept_prob: Tensor, share: float) -> None:
        self.last = x, proposed, n, accept_prob, share


def slope_of_criterion(
    factor: Tensor, x: Tensor, proposed: Tensor, n: Tensor, accept_prob: Tensor, share: float
) -> float:
    """Slope of ChEES in length, from positions, proposals and final momenta, (C, dim), at time share * length.

    E[a (|z' - E z'|^2 - |z - E z|^2) (z' - E z') . n'] share / E[a], a the probabilities of acceptance, (C,).
    """
    a = torch.where(proposed.isfinite().all(1), accept_prob.nan_to_num(nan=0.0), 0.0)
    a = a / a.sum()
    here, there = _standard(factor, x), _standard(factor, torch.where(a[:, None] > 0, proposed, x))
    n = torch.where(a[:, None] > 0, n, 0.0)
    here, there = here - here.mean(0), there - a @ there
    gain = there.square().sum(1) - here.square().sum(1)  # (C,)
    return share * float((a * gain * (there * n).sum(1)).sum())


def _standard(factor: Tensor, x: Tensor) -> Tensor:
    """F^-1 x of each chain, (C, dim)."""
    if factor.ndim == 1:
        return x / factor
    return torch.linalg.solve_triangular(factor, x.mT, upper=False).mT
