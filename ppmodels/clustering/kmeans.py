"""K-means: round clusters of one width, to the nearest of which each row belongs."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppmodels.base import Data, Theta, dims
from ppmodels.clustering._checks import check_rows, describe
from ppmodels.clustering._expectation import bound, memberships
from ppmodels.clustering._labels import relabel
from ppmodels.clustering._starts import centres


@dataclass(frozen=True)
class KMeans:
    r"""K-means, as the mixture of equally likely, round clusters of a known width that it is the limit of.

    .. math:: \mu_k \sim N(m, b^2 S),\; z_n \sim U\{1..K\},\; x_n \mid z_n = k \sim N(\mu_k, h^2 I),
        \quad S = \mathrm{diag}(s)^2

    with m, s, b, h = center, scale, spread, width. With `hard`, em assigns a row to its nearest mean alone: Lloyd's
    algorithm, whatever the width, from the start of k-means++. Its `log_likelihood` is then log p(x, z) at the best
    z: -cost / (2 width^2) and a constant. Without, the same EM with soft memberships is a mixture's.

    Latents:  loc (K, D), unit of x; z (N,) is summed out.
    Observed: x (N, D).
    Source:   Lloyd (1982), IEEE Transactions on Information Theory 28; Bishop (2006), section 9.3.2.
    """

    components: int = 3
    dim: int = 2
    width: float = 1.0
    hard: bool = True
    center: tuple[float, ...] = (0.0,)  # one a column, or one for all
    scale: tuple[float, ...] = (1.0,)
    spread: float = 2.0
    observed: ClassVar[tuple[str, ...]] = ("x",)

    def __post_init__(self) -> None:
        if not all(0 < value < math.inf for value in (self.components, self.dim, self.width, self.spread, *self.scale)):
            raise ValueError("components, dim, width, spread and scale must be positive and finite")

    @classmethod
    def for_data(cls, x: Any, **fields: Any) -> "KMeans":
        """Return the model whose center and scale are the means and sds of the columns of x, (N, D)."""
        return cls(**{**describe(x, fields.get("components", cls.components)), **fields})

    def inputs(self, rows: int) -> dict[str, Tensor]:
        return {}

    def model(self, data: Data) -> None:
        center, scale = (torch.tensor(field).expand(self.components, self.dim) for field in (self.center, self.scale))
        law = dist.Normal(center, self.spread * scale).to_event(2)
        loc = pyro.sample("loc", law, infer=dims("components", "feature"))
        even = torch.full((self.components,), 1 / self.components).to(loc)
        with data.plate():
            z = pyro.sample("z", dist.Categorical(even), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(loc[z], self.width).to_event(1), infer=dims("feature"))

    def start(self, data: Data) -> Theta:
        return {"loc": centres(check_rows(data.observed["x"], self.components, self.dim), self.components, "k-means++")}

    def e_step(self, theta: Theta, data: Data) -> tuple[Tensor, Tensor]:
        joint = self._log_joint(theta, data)  # (N, K)
        if not self.hard:
            return memberships(joint, data)
        nearest = joint.argmax(-1)
        q = torch.nn.functional.one_hot(nearest, self.components).to(joint)
        return q, joint.gather(1, nearest[:, None]).sum(dtype=torch.float64)

    def m_step(self, q: Tensor, data: Data, prior: bool) -> Theta:
        x, count = data.observed["x"], q.sum(0)[:, None]
        scale, center = (torch.tensor(field).to(x) for field in (self.scale, self.center))
        pull = (self.width / (self.spread * scale)) ** 2 if prior else torch.zeros_like(center)
        loc = torch.where(count + pull > 0, (q.mT @ x + pull * center) / (count + pull), 0.0)
        for k in (count[:, 0] == 0).nonzero()[:, 0].tolist() if not prior else ():
            loc[k] = x[(x - q @ loc).square().sum(-1).argmax()]  # an empty cluster takes the row that is worst off
        return {"loc": loc}

    def bound(self, q: Tensor, theta: Theta, data: Data) -> Tensor:
        return bound(q, self._log_joint(theta, data), data)

    def relabel(self, draws: Theta) -> Theta:
        """Return the draws, (..., *site), with clusters in the order of loc's first coordinate."""
        return relabel(draws)

    def _log_joint(self, theta: Theta, data: Data) -> Tensor:
        distance = torch.cdist(data.observed["x"], theta["loc"], compute_mode="donot_use_mm_for_euclid_dist")  # (N, K)
        constant = math.log(self.components) + self.dim / 2 * math.log(2 * math.pi * self.width**2)
        return -distance.square() / (2 * self.width**2) - constant
