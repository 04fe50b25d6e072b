"""The Gaussian law of a path that moves linearly, as precision, where trials end at different bins."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ppmodels.population._positive import cholesky
from ppmodels.population.linear_system import LinearSystem


@dataclass(frozen=True)
class PathPrior:
    """The law of each trial's path, up to its end.

    diagonal (R, T, P, P), below (R, T - 1, P, P): blocks. start: first block of precision times mean, (R, 1, P).
    log_det (R,), of the precision. constant (R,): minus half the mean's square in the precision.
    """

    diagonal: Tensor
    below: Tensor
    start: Tensor
    log_det: Tensor
    constant: Tensor

    @classmethod
    def of(cls, system: LinearSystem, active: Tensor) -> "PathPrior":
        """Return the law of the bins where `active`, (R, T), a trial has not ended; others are N(0, I) apart."""
        eye = torch.eye(system.latents, dtype=system.loading.dtype, device=system.loading.device)
        first, later, arrow, ends = prior_blocks(system)
        on = active[..., None, None]  # (R, T, 1, 1)
        diagonal = torch.where(on, later, eye)
        diagonal = torch.cat([torch.where(on[:, :1], first, eye), diagonal[:, 1:]], 1)
        leaving = torch.where(on[:, 1:], system.dynamics.mT @ arrow, 0.0)
        diagonal = diagonal + torch.nn.functional.pad(leaving, (0, 0, 0, 0, 0, 1))
        start = torch.where(active[:, :1, None], first @ system.initial_loc, 0.0)
        alive = active.to(diagonal)
        log_det = -(alive[:, 0] * ends[0] + alive[:, 1:].sum(-1) * ends[1])
        constant = -0.5 * alive[:, 0] * (system.initial_loc @ first @ system.initial_loc)
        return cls(diagonal, torch.where(on[:, 1:], -arrow, 0.0), start, log_det, constant)


def prior_blocks(system: LinearSystem) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Return V_0^-1, Q^-1, Q^-1 A, and the log determinants of V_0 and Q."""
    roots = cholesky(torch.stack([system.initial_cov, system.innovation]), "smoothing", "V_0 or Q")
    first, later = torch.cholesky_inverse(roots)
    start, step = 2 * roots.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return first, later, later @ system.dynamics, (start, step)
