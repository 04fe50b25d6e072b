"""Gaussian mixture: every row belongs to one of a few clusters, and scatters around its mean."""

from dataclasses import dataclass
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
from torch import Tensor

from ppmodels.base import Data, Theta, dims
from ppmodels.clustering import _covariance, _labels
from ppmodels.clustering._checks import check_data, check_fields, describe
from ppmodels.clustering._expectation import bound, expected, log_joint, memberships, sums
from ppmodels.clustering._gaussian import ClusterNormal
from ppmodels.clustering._maximise import maximise, start
from ppmodels.clustering._ordered import gaussian_rows
from ppmodels.clustering._prior import prior_of
from ppmodels.clustering._starts import Seeding
from ppmodels.clustering._statistics import Statistics, expected_log_joint


@dataclass(frozen=True)
class GaussianMixture:
    r"""Mixture of Gaussians with full, tied, diagonal or spherical covariance.

    .. math:: w \sim Dir(a),\; \mu_k \sim N(m, b^2 S),\; \Sigma_k \sim IW(\nu + D - 1, \nu h^2 S),\; z_n \sim w,\;
        x_n \mid z_n = k \sim N(\mu_k, \Sigma_k), \quad S = \mathrm{diag}(s)^2

    with a, m, s, b, nu, h = concentration, center, scale, spread, strength, width: a cluster's sd is about `width` of a
    column's `scale`, as if seen in `strength` rows; so no component can collapse on one row. Sigma^-1 = W'W with W
    lower triangular: `precision` is its squared diagonal, `off_diagonal` the rest.

    Latents:  weights (K,); loc (K, D), unit of x; precision (K, D); off_diagonal (K, P), P = D (D - 1) / 2. Tied has
              no K, diagonal no off_diagonal, spherical precision (K,); z (N,) summed out, covariance (K, D, D) computed
    Observed: x (N, D); em takes NaN as missing at random, and `weight` (N,), how often each row counts.
    Source:   Bishop (2006), section 9.2; Fraley and Raftery (2007), J. Classification 24, 155-181.
    """

    components: int = 2
    dim: int = 2
    covariance: _covariance.Family = "full"
    ordered: bool = False  # the first coordinates of loc increase: one of the K! labellings
    seeding: Seeding = "mixed"
    center: tuple[float, ...] = (0.0,)  # one a column, or one for all
    scale: tuple[float, ...] = (1.0,)
    concentration: float = 2.0
    spread: float = 2.0
    strength: float = 4.0
    width: float = 0.5
    observed: ClassVar[tuple[str, ...]] = ("x",)
    optional: ClassVar[tuple[str, ...]] = ("weight",)
    __post_init__, check = check_fields, check_data

    @classmethod
    def for_data(cls, x: Any, **fields: Any) -> "GaussianMixture":
        """Return the mixture whose center and scale are the means and sds of the columns of x, (N, D)."""
        return cls(**{**describe(x, fields.get("components", cls.components)), **fields})

    def inputs(self, rows: int) -> dict[str, Tensor]:
        return {}

    def model(self, data: Data) -> None:
        concentration, center, sd, shape, rate = prior_of(self)
        weights = pyro.sample("weights", dist.Dirichlet(concentration), infer=dims("components"))
        loc = pyro.sample("loc", gaussian_rows(center, sd, self.ordered), infer=dims("components", "feature"))
        factor = _covariance.sample(self.covariance, center.shape, shape, rate)  # W, or its diagonal
        with data.plate():
            z = pyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
            pyro.sample("x", ClusterNormal(z, loc, factor, center[0]), infer=dims("feature"))

    def start(self, data: Data) -> Theta:
        return _labels.ordered(self, start(self, data))

    def restart(self, data: Data) -> Theta:
        return _labels.ordered(self, start(self, data, again=True))

    def e_step(self, theta: Theta, data: Data) -> tuple[Tensor, Tensor]:
        return memberships(self._log_joint(theta, data), data)

    def m_step(self, q: Tensor, data: Data, prior: bool) -> Theta:
        return self.maximise(sums(q, data, self.covariance), prior)

    def bound(self, q: Tensor, theta: Theta, data: Data) -> Tensor:
        return bound(q, self._log_joint(theta, data), data)

    def statistics(self, theta: Theta, data: Data) -> tuple[Statistics, Tensor]:
        return expected(data, *_covariance.parameters(theta, self.covariance))

    def maximise(self, statistics: Statistics, prior: bool) -> Theta:
        return _labels.ordered(self, maximise(self.covariance, statistics, prior_of(self) if prior else None))

    def expected_log_joint(self, statistics: Statistics, theta: Theta) -> Tensor:
        return expected_log_joint(statistics, *_covariance.parameters(theta, self.covariance))

    def relabel(self, draws: Theta) -> Theta:
        """Return the draws, (..., *site), with components in the order of loc's first coordinate."""
        return _labels.relabel(draws, ("precision", "off_diagonal") if self.covariance == "tied" else ())

    def _log_joint(self, theta: Theta, data: Data) -> Tensor:
        return log_joint(data, *_covariance.parameters(theta, self.covariance))  # (N, K)
