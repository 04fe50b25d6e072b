"""The ELBO of any program and guide, minibatch by minibatch, as Pyro estimates it."""

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, autoguide, config_enumerate
from pyro.infer.mcmc.util import TraceEinsumEvaluator
from pyro.infer.util import is_validation_enabled
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from inference.base import Unsupported, joint
from inference.density.program import is_computed
from inference.svi.weighted import WeightedELBO
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
    estimator: of the bound; any of `pyro.infer` with a `differentiable_loss`.
    """

    program: Program
    guide: Program
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    summed: tuple[str, ...]
    latent: tuple[str, ...]
    estimator: Any
    _looked: bool = False

    def __post_init__(self) -> None:
        self._model = config_enumerate(self.program) if self.summed else self.program
        parts = [p for whole in (self.guide, *_owners(self.program, self.guide)) for p in _modules(whole)]
        self._buffers = {f"{i} {name}": b for i, part in enumerate(parts) for name, b in part.named_buffers()}

    @classmethod
    def of(
        cls, model: Any, args: Any, kwargs: Mapping[str, Any], guide: Any, survey: Survey, num_particles: int,
        loss: Any = None,
    ) -> "Objective":  # fmt: skip
        """Choose the guide and the estimator. guide: "hand", a name in `AUTOMATIC`, "none", or any Pyro guide."""
        program = joint(model, args, kwargs)
        if guide == "none":
            q, nodes = _empty, {}
        else:
            q = _guide(guide, model, program, survey)
            with torch.no_grad(), pyro.get_param_store().scope():
                nodes: dict[str, Any] = dict(poutine.trace(q).get_trace(*args, **kwargs).nodes)
        summed = tuple(name for name in survey.discrete if name not in nodes)
        lost = [name for name in (*survey.latent, *survey.endless) if name not in nodes]
        if lost:
            raise Unsupported(f"the guide has no site {lost[0]!r}, which the model leaves latent")
        latent = tuple(n for n in (*survey.latent, *survey.discrete, *survey.endless) if n in nodes)
        estimator = copy.deepcopy(loss) or _estimator(nodes, bool(summed), num_particles)
        return cls(program, q, args, kwargs, summed, latent, estimator)

    def at(self, step: int) -> None:
        """Set what the estimator changes on the way, such as an annealed weight."""
        if hasattr(self.estimator, "at"):
            self.estimator.at(step)

    def buffers(self) -> dict[str, Tensor]:
        """Return what is neither learned nor data and yet changes, by name: a batch norm's means, say."""
        return self._buffers | getattr(self.estimator, "now", {})

    def loss(self, index: Tensor | None, data: Any = None) -> Tensor:
        """Return minus the bound, (), differentiable, of these rows scaled up to all; None means all rows.

        data: another data set than the one that is fitted.
        """
        args = self.args if data is None else (data,)
        args = args if index is None else (args[0].batch(index),)
        # Pyro looks at every value's support, once; a bound that is not finite stops the loop later on.
        with warnings.catch_warnings(), pyro.validation_enabled(is_validation_enabled() and not self._looked):
            warnings.filterwarnings("ignore", message=".*was not registered in the param store.*")
            self._looked = data is None
            with torch.enable_grad():  # Pyro refuses a bound that has no gradient, also where none is asked for
                bound = self.estimator.differentiable_loss(self._model, self.guide, *args, **self.kwargs)
        return bound if torch.is_grad_enabled() else bound.detach()

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


def _guide(guide: Any, model: Any, program: Program, survey: Survey) -> Program:
    if guide == "hand":
        return model.guide
    if isinstance(guide, (str, type)):
        kind = AUTOMATIC[guide] if isinstance(guide, str) else guide
        return kind(poutine.block(program, hide=list(survey.discrete)))
    return guide


def _estimator(nodes: Mapping[str, Any], summed: bool, num_particles: int) -> Any:
    """What suits the guide: sums over discrete sites, path gradients, or the score function."""
    drawn = [n for n in nodes.values() if n["type"] == "sample" and not n["is_observed"] and not site_is_subsample(n)]
    if summed or any(n["infer"].get("enumerate") for n in drawn):
        return TraceEnum_ELBO(num_particles=num_particles)
    if all(n["fn"].has_rsample for n in drawn):
        return WeightedELBO(num_particles=num_particles)
    return Trace_ELBO(num_particles=num_particles)


def _owners(*programs: Any) -> list[Any]:
    """The objects that programs are methods of, or were made from."""
    return [getattr(p, "key", getattr(p, "__self__", None)) for p in programs]


def _modules(whole: Any) -> list[nn.Module]:
    """The networks among an object's attributes, or the object itself."""
    if isinstance(whole, nn.Module):
        return [whole]
    return [value for value in getattr(whole, "__dict__", {}).values() if isinstance(value, nn.Module)]


def _empty(*args: Any, **kwargs: Any) -> None:
    """The guide of a model without latents."""
