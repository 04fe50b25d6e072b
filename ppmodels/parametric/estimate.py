"""Maximum likelihood, and how far it may be off: information, standard errors, intervals."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import grad, jacrev, vmap

from ppmodels.parametric._newton import ascend, curvature_of
from ppmodels.parametric._profile import profile
from ppmodels.parametric.family import Family, Irregular
from ppmodels.parametric.sample import Sample, log_likelihood, row_log_likelihood

Kind = Literal["observed", "expected", "sandwich"]


@dataclass(frozen=True)
class Estimate:
    """The maximum of the likelihood of each data set, and the shape of the likelihood there.

    theta: (..., P), in the order of `family.parameters`. log_likelihood: (...).
    Methods that stand on the theory of regular peaks raise Irregular, with the data set and the reason, where it fails.
    """

    family: Family
    sample: Sample
    theta: Tensor
    log_likelihood: Tensor

    def __getitem__(self, parameter: str) -> Tensor:
        """Return one parameter by name, (...)."""
        return self.theta[..., self.family.parameters.index(parameter)]

    def score_rows(self, theta: Tensor | None = None) -> Tensor:
        """Return the derivative of each row's log likelihood, (..., N, P), by default at the maximum."""

        def one(at: Tensor, x: Tensor, *censored: Tensor) -> Tensor:
            return row_log_likelihood(self.family, at, x[None], *(c[None] for c in censored))[0]

        x, _, *censored = self.sample.flat()
        rows = vmap(grad(one), (None, *[0] * (1 + len(censored))))
        return self._shaped(vmap(rows)(self._flat(theta), x, *censored))

    def score(self, theta: Tensor | None = None) -> Tensor:
        """Return the derivative of the log likelihood, (..., P): zero at the maximum, zero on average at the truth."""
        return (self.sample.weight[..., None] * self.score_rows(theta)).sum(-2)

    def observed_information(self, theta: Tensor | None = None) -> Tensor:
        """Return minus the log likelihood's second derivative, (..., P, P)."""
        curvature = vmap(curvature_of(lambda t, *rows: log_likelihood(self.family, t, *rows)))
        return -self._shaped(curvature(self._flat(theta), *self.sample.flat()))

    def expected_information(self, theta: Tensor | None = None) -> Tensor:
        """Return Fisher's information of all rows, (..., P, P).

        Raises: Irregular where there is none; also with censored rows, whose law of being cut is not known.
        """
        if self.sample.censored is not None:
            raise Irregular("with censored rows the expected information depends on how rows were cut; use observed")
        return self.sample.rows[..., None, None] * self.family.information(self.theta if theta is None else theta)

    def covariance(self, kind: Kind | None = None) -> Tensor:
        r"""Return the covariance of the maximum around the truth, (..., P, P).

        observed: inverse of the observed information, the default. expected: of Fisher's, the default where the score
        jumps. sandwich: :math:`J^{-1} (\sum_n w_n s_n s_n^\top) J^{-1}`, right also where the family is wrong.
        Source: Efron and Hinkley (1978), Biometrika 65, 457-487; White (1982), Econometrica 50, 1-25.
        """
        kind = kind or ("observed" if self.family.smooth else "expected")
        self.check_regular()
        if kind == "expected":
            return _inverse(self.expected_information())
        if not self.family.smooth:
            raise Irregular(f"the score of {self.family} jumps, so its slope says nothing; use kind='expected'")
        bread = _inverse(self.observed_information())
        if kind == "observed":
            return bread
        score = self.score_rows()
        return bread @ (score.mT @ (self.sample.weight[..., None] * score)) @ bread

    def standard_errors(self, kind: Kind | None = None) -> Tensor:
        """Return the roots of the covariance's diagonal, (..., P)."""
        return self.covariance(kind).diagonal(dim1=-2, dim2=-1).sqrt()

    def wald(self, level: float = 0.95, kind: Kind | None = None) -> Tensor:
        """Return theta plus and minus normal quantiles of its standard errors, (..., P, 2)."""
        reach = torch.special.ndtri(self.theta.new_tensor((1 + level) / 2)) * self.standard_errors(kind)
        return torch.stack([self.theta - reach, self.theta + reach], -1)

    def profile(self, level: float = 0.95) -> Tensor:
        """Return where the likelihood, maximised over the other parameters, has fallen too far to believe, (..., P, 2).

        Twice the fall is the quantile of a chi-squared law with one degree of freedom; scales do not matter.
        """
        self.check_regular()
        if not self.family.smooth:
            raise Irregular(f"the score of {self.family} jumps; its profile has no curvature to follow")
        fall = torch.special.ndtri(self.theta.new_tensor((1 + level) / 2)).square() / 2
        ends = profile(self.family, self._flat(None), self.log_likelihood.reshape(-1) - fall, self.sample.flat())
        return self._shaped(ends)

    def transformed(self, function: Callable[[Tensor], Tensor], kind: Kind | None = None) -> tuple[Tensor, Tensor]:
        """Return g(theta), the maximum in those terms, and its standard errors, (..., Q) each, by the delta method."""
        value = self._shaped(vmap(function)(self._flat(None)))
        slope = self._shaped(vmap(jacrev(function))(self._flat(None)))  # (..., Q, P)
        spread = (slope @ self.covariance(kind) * slope).sum(-1).sqrt()
        return value, spread

    def check_regular(self) -> None:
        """Raise Irregular for the first data set whose maximum is no regular peak."""
        wrong, why = self.family.edge(self.theta)
        if bool(wrong.any()):
            places = wrong.nonzero()[0].tolist()
            where = f", data set {', '.join(map(str, places))}" if places else ""
            raise Irregular(f"{self.family}{where}: {why}")

    def _flat(self, theta: Tensor | None) -> Tensor:
        theta = self.theta if theta is None else theta
        return theta.expand(*self.sample.shape, theta.shape[-1]).reshape(-1, theta.shape[-1])

    def _shaped(self, values: Tensor) -> Tensor:
        return values.reshape(*self.sample.shape, *values.shape[1:])


def maximum_likelihood(family: Family, x: Any, weight: Any = None, censored: Any = None) -> Estimate:
    """Fit a family to every data set of x (..., N), side by side; see `Sample` for weight and censored.

    By formula where there is one and nothing is censored, else by Newton's steps in real coordinates.
    Raises: ValueError that names a bad row; Irregular where no maximum was reached.
    """
    sample = Sample.of(family, x, weight, censored)
    theta = family.start(sample.x, sample.weight)
    if not (family.exact and sample.censored is None):
        theta = _climb(family, sample, theta)
    value = log_likelihood(family, theta, sample.x, sample.weight, sample.censored)
    return Estimate(family, sample, theta, value)


def _climb(family: Family, sample: Sample, start: Tensor) -> Tensor:
    """Newton's steps from a start that a formula gave; a set whose start is at the edge stays there."""
    if not family.smooth:
        raise Irregular(f"{family} with censored rows has no smooth likelihood to climb")
    at_edge = family.edge(start)[0]
    if sample.censored is not None:
        for sign, side in ((1, "above"), (-1, "below")):
            every = ((sample.censored == sign) | (sample.weight == 0)).all(-1)
            if bool(every.any()):
                raise Irregular(f"every row of a data set is censored on one side: its likelihood rises {side} all x")
        if bool(at_edge.any()):
            raise Irregular(f"{family}: {family.edge(start)[1]}")
    safe = torch.where(at_edge[..., None], torch.ones_like(start), start)

    def objective(eta: Tensor, *rows: Tensor) -> Tensor:
        return log_likelihood(family, family.constrain(eta), *rows)

    first = family.unconstrain(safe).reshape(-1, start.shape[-1])
    eta, _, reached = ascend(objective, first, sample.flat())
    lost = ~(reached.reshape(sample.shape) | at_edge)
    found = torch.where(at_edge[..., None], start, family.constrain(eta).reshape(start.shape))
    lost = lost & ~family.edge(found)[0]
    if bool(lost.any()):
        raise Irregular(f"no maximum was reached in data set {lost.reshape(-1).nonzero()[0].item()} of {family}")
    return found


def bootstrap(family: Family, x: Any, num_samples: int = 1000, seed: int = 0) -> Tensor:
    """Return maxima of data sets drawn with replacement from the rows of x (N,), (num_samples, P), all at once."""
    sample = Sample.of(family, x)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(sample.x.shape[-1], (num_samples, sample.x.shape[-1]), generator=generator)
    return maximum_likelihood(family, sample.x[rows.to(sample.x.device)]).theta


def _inverse(information: Tensor) -> Tensor:
    """The inverse of a positive definite matrix; Raises Irregular where it is none."""
    root, failed = torch.linalg.cholesky_ex(information)
    if bool((failed != 0).any()):
        raise Irregular("the information is not positive definite: some direction of the parameters is not determined")
    return torch.cholesky_inverse(root)
