"""What is not known of an outcome, in two parts: what no data would tell, and what more data would."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from inference.base import Fit, Unsupported, fresh
from inference.pointwise import pointwise
from inference.tracing.learned import learned
from inference.tracing.over_draws import flatten, over_draws
from inference.tracing.sites import At, Program
from ppmodels.base import Data, Model


@dataclass(frozen=True)
class Outcomes:
    """The law of an observed site at every draw: its mean and variance; of classes, of each class's indicator.

    mean, variance (chain, draw, N), or (chain, draw, N, C) of classes: mean is then the probability.
    """

    site: str
    mean: Tensor
    variance: Tensor
    classes: bool

    @property
    def location(self) -> Tensor:
        """The predictive mean, (N,) or (N, C)."""
        return self.mean.flatten(0, 1).mean(0)

    @property
    def aleatoric(self) -> Tensor:
        """E[Var(y | theta)]: noise, which no data would take away, (N,) or (N, C)."""
        return self.variance.flatten(0, 1).mean(0)

    @property
    def epistemic(self) -> Tensor:
        """Var[E(y | theta)]: what draws disagree about, with 1 / m, so that both parts add up to the total."""
        return self.mean.flatten(0, 1).var(0, correction=0)

    @property
    def epistemic_unbiased(self) -> Tensor:
        """The same with 1 / (m - 1): unbiased for the posterior's variance when draws are independent."""
        return self.mean.flatten(0, 1).var(0)

    @property
    def total(self) -> Tensor:
        """The variance of the draws' mixture, (N,) or (N, C)."""
        second = (self.variance + self.mean.square()).flatten(0, 1).mean(0)
        return second - self.location.square()

    @property
    def entropy(self) -> Tensor:
        """Entropy of the predictive classes in nats, (N,)."""
        return _entropy(self._probabilities(self.location))

    @property
    def mutual_information(self) -> Tensor:
        """The part of that entropy which is disagreement between draws, in nats, (N,)."""
        return self.entropy - _entropy(self._probabilities(self.mean)).flatten(0, 1).mean(0)

    def _probabilities(self, value: Tensor) -> Tensor:
        if not self.classes:
            raise Unsupported(f"site {self.site!r} has no classes, so look at its variances")
        return value


def outcomes(fit: Fit, data: Data | None = None, *, site: str | None = None, chunk: int | None = None) -> Outcomes:
    """Return the law of an observed site at every draw of a fit.

    data: other rows of a model of the collection; by default those that it was fitted to.
    site: which observed site, where there are several.
    chunk: draws at once; by default as many as fit into memory.

    Raises: Unsupported where the law has no mean and variance, or rows are taken at random.
    Source: Depeweg et al. (2018), ICML, equations 9 and 12, for the two parts.
    """
    if data is not None and not isinstance(fit.model, Model):
        raise TypeError("a plain program has no `data` to replace; make a Fit with other `args` for that")
    args = fit.args if data is None else (data,)
    draws, shape = flatten(fit.draws)
    with fresh(fit.model, args, fit.kwargs) as own, learned(fit), torch.no_grad():
        call = own.model if isinstance(own, Model) else own
        first = {name: value[0] for name, value in draws.items()}
        program = Program.read(call, args, fit.kwargs, first, redraw=True)
        if program.plates:
            raise Unsupported(f"plate {next(iter(program.plates))!r} takes rows at random; give all of them at once")
        known = own.observed if isinstance(own, Model) else Program.read(own, args, fit.kwargs, {}).observed
        site = site or next(iter(known))
        if site not in known:
            raise ValueError(f"no observed site {site!r}; there are: {', '.join(known)}")
        classes = isinstance(_law(program.nodes[site]), dist.Categorical | dist.OneHotCategorical)
        parts = list(over_draws(_moments(program, site), draws, random=True, chunk=chunk))
    mean, variance = (torch.cat([part[name] for part in parts]) for name in ("mean", "variance"))
    mean, variance = (value.reshape(*shape, *value.shape[1:]) for value in (mean, variance))
    return Outcomes(site, mean, variance, classes)


def log_predictive(fit: Fit, data: Data | None = None, *, chunk: int | None = None) -> Tensor:
    """Return log p(y_n | the data that were fitted), of each row, (N,): the draws' densities, averaged.

    data: other rows, with what was observed there; by default those that it was fitted to.
    """
    at = fit if data is None else replace(fit, args=(data,))
    (values,) = pointwise(at, chunk=chunk).log_likelihood.values()
    flat = values.flatten(0, 1)  # (S, N)
    return flat.logsumexp(0) - torch.log(torch.tensor(float(len(flat))))


def _moments(program: Program, site: str) -> Any:
    def values(draw: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with pyro.validation_enabled(False), At(draw, {}, redraw=True):
            trace: Any = poutine.trace(program.call).get_trace(*program.args, **program.kwargs)
        law = _law(trace.nodes[site])
        try:
            if isinstance(law, dist.Categorical | dist.OneHotCategorical):
                return {"mean": law.probs, "variance": law.probs * (1 - law.probs)}
            shape = trace.nodes[site]["value"].shape
            return {"mean": law.mean.expand(shape), "variance": law.variance.expand(shape)}
        except NotImplementedError:
            raise Unsupported(f"site {site!r} ~ {type(law).__name__} has no mean and variance in closed form") from None

    return values


def _law(node: Mapping[str, Any]) -> Any:
    """The site's distribution, without what only says which axes are its event's, or masks it."""
    law = node["fn"]
    while isinstance(law, dist.Independent | dist.MaskedDistribution | torch.distributions.Independent):
        law = law.base_dist
    return law


def _entropy(probability: Tensor) -> Tensor:
    return -torch.special.xlogy(probability, probability).sum(-1)
