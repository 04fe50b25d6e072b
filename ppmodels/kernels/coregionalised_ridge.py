"""Kernel ridge regression of outputs that vary together: what one of them shows, the others take into account."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ppmodels.kernels.functions import Kernel
from ppmodels.kernels.ridge import KernelRidge


@dataclass(frozen=True)
class CoregionalisedRidge:
    r"""The posterior of Q functions of covariance :math:`B_{pq}\, k(x, x')`, each seen with noise of its own.

    With noise s, :math:`B_{pq} / s_p s_q = (U S U^\top)_{pq}`: the columns of (y / s) U are independent regressions
    of penalties 1 / S.

    regressions: of those columns. strength: S (Q,). mixing: diag(s) U, back to the outputs, (Q, Q).
    Source: Bonilla, Chai and Williams (2008), NIPS 20; Rakitsch et al. (2013), NIPS 26.
    """

    regressions: tuple[KernelRidge, ...]
    strength: Tensor
    mixing: Tensor

    @classmethod
    def fit(cls, x: Tensor, y: Tensor, kernel: Kernel, between: Tensor, noise: Tensor) -> "CoregionalisedRidge":
        """Fit y (N, Q) on x (N, D), given B (Q, Q) and the noise of each output, (Q,)."""
        strength, mixing = torch.linalg.eigh(between / noise / noise[:, None])
        strength = strength.clamp(min=torch.finfo(strength.dtype).eps * float(strength.max()))
        columns = (y / noise) @ mixing
        regressions = tuple(
            KernelRidge.fit(x, column, kernel, 1 / float(s)) for s, column in zip(strength, columns.mT, strict=True)
        )
        return cls(regressions, strength, noise[:, None] * mixing)

    def predict(self, x: Tensor) -> Tensor:
        """Return the functions' means at x (n, D), (n, Q)."""
        return torch.stack([each.predict(x) for each in self.regressions], -1) @ self.mixing.mT

    def variance(self, x: Tensor) -> Tensor:
        """Return the functions' variances at x (n, D), (n, Q)."""
        own = torch.stack([each.variance(x) for each in self.regressions], -1) * self.strength
        return own @ self.mixing.square().mT

    def leave_one_out(self) -> Tensor:
        """Return each row's residuals when the fit saw none of its outputs, (N, Q); exact and without a refit."""
        return torch.stack([each.leave_one_out() for each in self.regressions], -1) @ self.mixing.mT
