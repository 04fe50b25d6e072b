"""The density at any points by the chains' own compiled step, a step of length nought: nothing more is compiled."""

from dataclasses import replace

import torch
from torch import Tensor

from inference.density import Batched
from inference.density.executor import chains_innermost
from inference.mcmc.chains import leapfrog
from inference.mcmc.plan import Plan

BY_LEAPFROG = ("hmc", "chees")  # kernels whose steps are `leapfrog`


def by_steps(batched: Batched, plan: Plan, factor: Tensor, points: int) -> Batched | None:
    """Return value and gradient for so many points, at most as many as there are chains; None where it would not pay.

    factor: of the metric that the chains will step with, (dim, dim) or (dim,): the step is compiled for its form.
    """
    if plan.kernel not in BY_LEAPFROG or batched.executor != "inductor" or points > batched.chains:
        return None
    step_once, dim = batched.repeat(leapfrog, 3), len(factor)
    still = factor.new_zeros(dim, batched.chains).mT
    length = still[:, :1].contiguous()

    def evaluate(x: Tensor) -> tuple[Tensor, Tensor]:
        rows = len(x)
        if rows < batched.chains:
            x = torch.cat([x, x[:1].expand(batched.chains - rows, -1)])
        *_, grad, log_prob = step_once(1, chains_innermost(x), still, still, length, factor)
        return log_prob[:rows].clone(), grad[:rows].clone()

    return replace(batched.replayed(), chains=points, _evaluate=evaluate, _constants=())
