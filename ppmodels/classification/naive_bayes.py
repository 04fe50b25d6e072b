"""Naive Bayes: the columns of a row are independent given its class."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import pyro
from torch import Tensor

from ppmodels.base import Data, Theta, dims
from ppmodels.classification import _conjugate, _semi_supervised
from ppmodels.classification._columns import Columns, Kind, check_fields, describe
from ppmodels.classification._expected import expected_log_joint
from ppmodels.classification._laws import ClassColumns, PartlyKnown
from ppmodels.classification._rows import check_data, coefficient, log_density
from ppmodels.classification._semi_supervised import bound, labelled, memberships, random_memberships
from ppmodels.classification._tables import empty


@dataclass(frozen=True)
class NaiveBayes:
    r"""Naive Bayes with a kind for each column, missing values, and classes that may be unknown.

    .. math:: \pi \sim Dir(a),\; y_n \sim \pi,\; \theta_{cj} \sim Dir(a),\; \tau_{cj} \sim Gamma(\nu/2, \nu s_j^2/2),\;
        \mu_{cj} \sim N(m_j, 1 / \nu \tau_{cj}), \quad p(x_n \mid y_n = c) = \prod_j p(x_{nj} \mid \theta_{cj})

    with a, nu, m, s = alpha, strength, center, scale: the prior weighs as `alpha` rows at each value, and as `strength`
    rows of that mean and sd. All counted columns are one multinomial.

    Latents:  class_prob (C,); rate (C, B) of binary, table_t (C, L) of categorical, word_prob (C, V) of counted, and
              precision (C, G), loc (C, G) of real columns.
    Observed: y (N,), -1 where unknown; x (N, D), NaN where missing, at random. em and exact take sparse x too, and
              `weight` (N,), how often each row counts.
    Source:   Murphy (2012), Machine Learning, sections 3.5 and 4.6.3; Nigam et al. (2000), Machine Learning 39.
    """

    classes: int = 2
    columns: tuple[Kind, ...] = ("bernoulli", "bernoulli", "bernoulli")
    levels: tuple[int, ...] = ()  # of each categorical column
    alpha: float = 1.0
    center: tuple[float, ...] = (0.0,)  # one a real column, or one for all
    scale: tuple[float, ...] = (1.0,)
    strength: float = 2.0
    words: int = 20  # of a simulated row
    observed: ClassVar[tuple[str, ...]] = ("y", "x")
    optional: ClassVar[tuple[str, ...]] = ("weight",)
    __post_init__, check = check_fields, check_data
    sums, given, statistics, maximise = labelled, _conjugate.posterior, _semi_supervised.statistics, _conjugate.best
    expected_log_joint = staticmethod(expected_log_joint)

    @classmethod
    def for_data(cls, x: Any, **fields: Any) -> "NaiveBayes":
        """Return the model whose center and scale are the means and sds of the real columns of x, (N, D)."""
        return cls(**{**describe(x, fields.get("columns")), **fields})

    def inputs(self, rows: int) -> dict[str, Tensor]:
        return {}

    def model(self, data: Data) -> None:
        theta: Theta = {}
        for name, law in self.given(empty(self._kinds, self.classes)).items():
            axes = dims("classes", *[f"{name}_value"] * (name != "class_prob"))
            theta[name] = pyro.sample(name, law(theta) if name == "loc" else law, infer=axes)
        with data.plate():
            y = pyro.sample("y", PartlyKnown(theta["class_prob"]))
            pyro.sample("x", ClassColumns(y, theta, self._kinds, self.words), infer=dims("feature"))

    def posterior(self, data: Data) -> dict[str, Any]:
        return self.given(self.sums(data))

    def log_evidence(self, data: Data) -> Tensor:
        """Return log p(x, y), ()."""
        counted = _semi_supervised.total(coefficient(self._kinds, data.observed["x"]), data)
        return _conjugate.log_evidence(self, self.sums(data)) + counted

    def start(self, data: Data) -> Theta:
        return self.m_step(random_memberships(self, data), data, True)

    def e_step(self, theta: Theta, data: Data) -> tuple[Tensor, Tensor]:
        return memberships(self.log_joint(theta, data), data)

    def m_step(self, q: Tensor, data: Data, prior: bool) -> Theta:
        return self.maximise(_semi_supervised.sums(self, q, data), prior)

    def bound(self, q: Tensor, theta: Theta, data: Data) -> Tensor:
        return bound(q, self.log_joint(theta, data), data)

    def log_joint(self, theta: Theta, data: Data) -> Tensor:
        table = theta["class_prob"].log() + log_density(self._kinds, theta, data.observed["x"])  # (N, C)
        return table + coefficient(self._kinds, data.observed["x"])[..., None]

    @property
    def sparse(self) -> bool:
        return self._kinds.sparse

    @cached_property
    def _kinds(self) -> Columns:
        return Columns(self.columns, self.levels)
