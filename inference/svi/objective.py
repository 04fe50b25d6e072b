"""The ELBO of any program and guide, minibatch by minibatch, as Pyro estimates it."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, autoguide, config_enumerate
from pyro.infer.mcmc.util import TraceEinsumEvaluator
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from inference.base import Unsupported, joint
from inference.density.program import is_computed
from inference.tracing.over_draws import over_draws

Program = Callable[..., Any]
AUTOMATIC = {
    "mean-field": autoguide.AutoNormal,
    "full-rank": autoguide.AutoMultivariateNormal,
    "low-rank": autoguide.AutoLowRankMultivariateNormal,
    "flow": autoguide.AutoIAFNormal,
}


@dataclass(frozen=True)
class Survey:
    """What a program consists of, read from one run.

    latent: continuous latent sites; row_latent: those with a value for each row; discrete: summed out;
    endless: discrete and not to be summed out; computed: deterministic; learned: are there parameters;
    random_rows: does a plate take some rows at random.
    """

    latent: tuple[str, ...]
    row_latent: tuple[str, ...]
    discrete: tuple[str, ...]
    endless: tuple[str, ...]
    computed: tuple[str, ...]
    learned: bool
    random_rows: bool

    @classmethod
    def of(cls, program: Program, args: Any, kwargs: Mapping[str, Any]) -> "Survey":
        """Run the program once. Call it inside `inference.base.fresh`."""
        with torch.no_grad(), pyro.get_param_store().scope():
            nodes: list[Any] = list(poutine.trace(program).get_trace(*args, **kwargs).nodes.values())
        samples = [n for n in nodes if n["type"] == "sample" and not n["is_observed"] and not site_is_subsample(n)]
        latent = [n for n in samples if not n["fn"].support.is_discrete and not n["fn"].has_enumerate_support]
        plates = [n["fn"] for n in nodes if site_is_subsample(n)]
        discrete = [n for n in samples if n not in latent]
        return cls(
            tuple(n["name"] for n in latent),
            tuple(n["name"] for n in latent if any(f.name == "rows" for f in n["cond_indep_stack"])),
            tuple(n["name"] for n in discrete if n["fn"].has_enumerate_support),
            tuple(n["name"] for n in discrete if not n["fn"].has_enumerate_support),
            tuple(n["name"] for n in nodes if n["type"] == "sample" and is_computed(n)),
            any(n["type"] == "param" for n in nodes),
            any(p.subsample_size is not None and p.subsample_size < p.size for p in plates),
        )


@dataclass
class Objective:
    """log p(latents, observed) - log q(latents), estimated from draws of the guide.

    program: the joint. guide: q. summed: sites to sum out. latent: sites that the guide draws.
    """

    program: Program
    guide: Program
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    summed: tuple[str, ...]
    latent: tuple[str, ...]
    num_particles: int = 1
    _elbo: Any = field(init=False)

    def __post_init__(self) -> None:
        kind = TraceEnum_ELBO if self.summed else Trace_ELBO
        self._elbo = kind(num_particles=self.num_particles)
        self._model = config_enumerate(self.program) if self.summed else self.program

    @classmethod
    def of(
        cls, model: Any, args: Any, kwargs: Mapping[str, Any], guide: Any, survey: Survey, num_particles: int
    ) -> "Objective":
        """Choose the guide and the estimator. guide: "hand", a name in `AUTOMATIC`, "none", or any Pyro guide."""
        program = joint(model, args, kwargs)
        if guide == "none":
            return cls(program, _empty, args, kwargs, survey.discrete, (), num_particles)
        if guide == "hand":
            q = model.guide
        elif isinstance(guide, (str, type)):
            kind = AUTOMATIC[guide] if isinstance(guide, str) else guide
            q = kind(poutine.block(program, hide=list(survey.discrete)))
        else:
            q = guide
        with torch.no_grad(), pyro.get_param_store().scope():
            proposed = set(poutine.trace(q).get_trace(*args, **kwargs).nodes)
        summed = tuple(name for name in survey.discrete if name not in proposed)
        lost = [name for name in (*survey.latent, *survey.endless) if name not in proposed]
        if lost:
            raise Unsupported(f"the guide has no site {lost[0]!r}, which the model leaves latent")
        latent = tuple(n for n in (*survey.latent, *survey.discrete, *survey.endless) if n in proposed)
        return cls(program, q, args, kwargs, summed, latent, num_particles)

    def loss(self, index: Tensor | None) -> Tensor:
        """Return minus the ELBO, (), differentiable, of these rows scaled up to all; None means all rows."""
        args = self.args if index is None else (self.args[0].batch(index),)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*was not registered in the param store.*")
            return self._elbo.differentiable_loss(self._model, self.guide, *args, **self.kwargs)

    def draw(self, number: int, wanted: tuple[str, ...]) -> tuple[dict[str, Tensor], Tensor]:
        """Return the wanted sites at draws of the guide, (number, *site), and log p - log q there, (number,)."""
        nesting = self._nesting()

        def values(_: Any) -> dict[str, Tensor]:
            guide = poutine.trace(self.guide).get_trace(*self.args, **self.kwargs)
            trace = self._replayed(self.program, guide)
            sites = {name: trace.nodes[name]["value"] for name in wanted}
            if self.summed:  # once more, because here every site may carry the axes of the summed-out ones
                trace = self._replayed(poutine.enum(self._model, first_available_dim=-1 - nesting), guide)
                log_p = TraceEinsumEvaluator(trace, True, nesting).log_prob(trace)
            else:
                log_p = trace.log_prob_sum()
            return {**sites, "log p - log q": torch.as_tensor(log_p - guide.log_prob_sum())}

        with torch.no_grad(), pyro.validation_enabled(False):
            parts = list(over_draws(values, {"draw": torch.arange(number)}, random=True))
        draws = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        log_ratio = draws.pop("log p - log q")
        return draws, log_ratio

    def _replayed(self, model: Any, guide: Any) -> Any:
        return poutine.trace(poutine.replay(model, trace=guide)).get_trace(*self.args, **self.kwargs)

    def _nesting(self) -> int:
        """Batch axes that the plates of program and guide take."""
        with torch.no_grad():
            guide = poutine.trace(self.guide).get_trace(*self.args, **self.kwargs)
            nodes = [*guide.nodes.values(), *self._replayed(self.program, guide).nodes.values()]
        frames = [f.dim for n in nodes if n["type"] == "sample" for f in n["cond_indep_stack"] if f.vectorized]
        return -min([0, *frames])


def _empty(*args: Any, **kwargs: Any) -> None:
    """The guide of a model without latents."""
