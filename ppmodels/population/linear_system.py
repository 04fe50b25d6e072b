"""A linear dynamical system: how a hidden path moves, and how neurons read it out."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ppmodels.population._positive import cholesky


@dataclass(frozen=True)
class LinearSystem:
    r"""Parameters of a path that moves linearly with noise, and of its linear readout.

    .. math:: z_1 \sim N(m_0, V_0),\; z_{t+1} \sim N(A z_t, Q),\; \eta_t = C z_t + d

    dynamics: A (P, P). innovation: Q (P, P). initial_loc: m_0 (P,). initial_cov: V_0 (P, P).
    loading: C (N, P). offset: d (N,). noise: variance of a Gaussian readout around eta, (N,), where there is one.
    """

    dynamics: Tensor
    innovation: Tensor
    initial_loc: Tensor
    initial_cov: Tensor
    loading: Tensor
    offset: Tensor
    noise: Tensor | None = None

    @property
    def latents(self) -> int:
        return self.dynamics.shape[-1]

    def sample_path(self, bins: int, shape: torch.Size) -> Tensor:
        """Return paths, (*shape, T, P)."""
        noise = torch.randn(*shape, bins, self.latents, dtype=self.loading.dtype, device=self.loading.device)
        first, later = torch.linalg.cholesky(self.initial_cov), torch.linalg.cholesky(self.innovation)
        path = [self.initial_loc + noise[..., 0, :] @ first.mT]
        for t in range(1, bins):
            path.append(path[-1] @ self.dynamics.mT + noise[..., t, :] @ later.mT)
        return torch.stack(path, -2)

    def moved(self, change: Tensor) -> "LinearSystem":
        """Return the same system in other coordinates, z -> change z, (P, P): the likelihood is as before."""
        back = torch.linalg.inv(change)
        return LinearSystem(
            change @ self.dynamics @ back,
            change @ self.innovation @ change.mT,
            change @ self.initial_loc,
            change @ self.initial_cov @ change.mT,
            self.loading @ back,
            self.offset,
            self.noise,
        )

    def canonical(self) -> "LinearSystem":
        """Return the same system with Q = I and C lower triangular, its diagonal positive: one of its many forms."""
        white = self.moved(torch.linalg.inv(cholesky(self.innovation, "canonical form", "Q")))
        turn, upper = torch.linalg.qr(white.loading[: self.latents].mT)  # C_top = upper' turn'
        turn = turn * torch.where(upper.diagonal() < 0, -1.0, 1.0)
        moved = white.moved(turn.mT)
        eye = torch.eye(self.latents, dtype=self.loading.dtype, device=self.loading.device)
        return LinearSystem(
            moved.dynamics, eye, moved.initial_loc, moved.initial_cov, moved.loading.tril(), self.offset, self.noise
        )

    def stationary_cov(self) -> Tensor:
        """Return the path's covariance after a long time, (P, P): S = A S A' + Q.

        Raises: ValueError when the dynamics grow without bound.
        """
        radius = float(torch.linalg.eigvals(self.dynamics).abs().max())
        if radius >= 1:
            raise ValueError(f"the dynamics grow without bound: their largest eigenvalue is {radius:.4g}")
        size = self.latents**2
        lifted = torch.eye(size, dtype=self.loading.dtype) - torch.kron(self.dynamics, self.dynamics)
        return torch.linalg.solve(lifted, self.innovation.reshape(-1)).reshape(self.innovation.shape)
