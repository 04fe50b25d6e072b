"""Two classes of bell-shaped clouds with one covariance: the best rule is a plane, and every plane's risk is known."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TwoNormals:
    r"""The law of a class and its features, known in full.

    .. math:: y \sim Bernoulli(\pi),\; x \mid y \sim N(\mu_y, \Sigma),\quad p(y = 1 \mid x) = \sigma(w^\top x + b),\;
        w = \Sigma^{-1} (\mu_1 - \mu_0)

    loc: (2, D). covariance: (D, D). probability: pi.
    Source: Bishop (2006), Pattern Recognition and Machine Learning, equations 4.65 to 4.67.
    """

    loc: Tensor
    covariance: Tensor
    probability: float = 0.5

    def plane(self) -> tuple[Tensor, Tensor]:
        """Return w (D,) and b () of the log-odds w'x + b, the best rule's."""
        low, high = self.loc
        slope = torch.linalg.solve(self.covariance, high - low)
        return slope, -(high + low) @ slope / 2 + self._log_odds

    def posterior(self, x: Tensor) -> Tensor:
        """Return p(y = 1 | x), (N,), of x (N, D)."""
        slope, offset = self.plane()
        return (x @ slope + offset).sigmoid()

    def risk(self, slope: Tensor, offset: Tensor | float) -> Tensor:
        """Return how often the rule w'x + b > 0 is wrong, ()."""
        spread = (slope @ self.covariance @ slope).sqrt()
        low, high = ((loc @ slope + offset) / spread for loc in self.loc)
        phi = torch.special.ndtr
        return (1 - self.probability) * phi(low) + self.probability * phi(-high)

    def bayes_error(self) -> Tensor:
        r"""Return the least risk of all rules, (): :math:`\Phi(-\Delta / 2)` for equal classes Delta sds apart."""
        return self.risk(*self.plane())

    def sample(self, rows: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return features (rows, D) and classes (rows,)."""
        y = (torch.rand(rows, generator=generator) < self.probability).long()
        noise = torch.randn(rows, self.loc.shape[1], generator=generator, dtype=self.loc.dtype)
        return self.loc[y] + noise @ torch.linalg.cholesky(self.covariance).mT, y

    @property
    def _log_odds(self) -> float:
        return math.log(self.probability / (1 - self.probability))
