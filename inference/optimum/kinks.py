"""The top of a log density that has kinks there: slopes on all sides say together how much is still to be gained.

Where a term such as -max(u, 0) binds, the gradient jumps. No point near the top has a small gradient then, so that
1/2 g' H^-1 g promises a gain that no step finds. A mixture of the slopes around does vanish.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

TRIES = 40  # evaluations
SERIOUS = 0.1  # share of the promised gain for which a step is taken


@dataclass(frozen=True)
class Ridge:
    """Where the climb ended: x, slope (D,), a mixture of slopes around x; value; gain: nats that are left, at most."""

    x: Tensor
    slope: Tensor
    value: float
    gain: float


def climb(
    value_and_grad: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor, factor: Tensor, tol: float
) -> Ridge | None:
    r"""Climb from x (D,) until no more than tol nats are left; None where values or slopes are not finite.

    factor: lower Cholesky factor (D, D) of minus the Hessian beside the kinks. Each slope g_i, taken at x_i, bounds
    what is to be gained; so does their mixture, by :math:`\tfrac12 g^\top H^{-1} g + \sum_i \lambda_i e_i`, where e_i
    is what the i-th misses at x.

    Source: Kiwiel (1990), Mathematical Programming 46; Bonnans et al. (2006), Numerical Optimization, chapter 10.
    """
    value, grad = value_and_grad(x)
    points, values, grads = [x], [value], [grad]
    for tried in range(TRIES):
        slopes = torch.stack(grads)  # (m, D)
        missed = (torch.stack(values) + ((x - torch.stack(points)) * slopes).sum(-1) - value).abs()  # (m,)
        white = torch.linalg.solve_triangular(factor, slopes.mT, upper=False).mT
        share = _shares(white, missed)
        slope, gain = share @ slopes, float(0.5 * (share @ white).square().sum() + share @ missed)
        if gain <= tol or tried == TRIES - 1:
            return Ridge(x, slope, float(value), gain)
        trial = x + torch.cholesky_solve(slope[:, None], factor)[:, 0]
        new_value, new_grad = value_and_grad(trial)
        if not bool(new_value.isfinite() & new_grad.isfinite().all()):
            break
        points, values, grads = [*points, trial], [*values, new_value], [*grads, new_grad]
        if float(new_value - value) >= SERIOUS * gain:
            x, value = trial, new_value
    return None


def _shares(white: Tensor, missed: Tensor) -> Tensor:
    """The mixture (m,) that promises least: of 1/2 |sum_i l_i w_i|^2 + sum_i l_i e_i over shares that add up to one."""
    size = float((0.5 * white.square().sum(-1) + missed).min()) or 1.0  # so that the solver sees numbers about one
    gram, away = (white @ white.mT / size).cpu().numpy(), (missed / size).cpu().numpy()
    start = np.zeros(len(away))
    start[int(np.argmin(0.5 * gram.diagonal() + away))] = 1.0
    found = minimize(
        lambda share: (0.5 * share @ gram @ share + away @ share, gram @ share + away),
        start,
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * len(away),
        constraints={"type": "eq", "fun": lambda share: share.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-14, "maxiter": 200},
    )
    share = np.clip(found.x, 0, None)
    return torch.as_tensor(share / share.sum()).to(white)
