"""The ELBO with its two parts weighed: how well the data are told, and how far the guide strays from the prior."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Independent
from pyro.distributions.util import scale_and_mask
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import kl_divergence

Number = float | Callable[[int], float]


@dataclass
class WeightedELBO:
    r"""Reparametrised ELBO of a program and its guide, with a weight on the divergence, or a wish for its size.

    .. math:: -E_q \log p(x \mid z) + \beta\, KL, \quad \beta\, |KL - C|, \quad
        \beta \sum_d \max(\lambda, KL_d)

    KL is a mean over rows in the latter two, and counts for each row. The divergence is in closed form where
    torch knows it and the sites come in one order in program and guide, which makes it unbiased; else it is
    log q - log p at the draw.

    beta: 1 is the ELBO; less at first anneals. capacity: C, nats a row. free_bits: lambda, nats a row and
    coordinate, below which a coordinate's divergence costs nothing more. A function of the step is asked
    before each. num_particles: draws a step.

    Source: Higgins et al. (2017), equation 4; Burgess et al. (2018), arXiv:1804.03599, equation 8; Kingma et
    al. (2016), arXiv:1606.04934, equation 15; Sönderby et al. (2016), arXiv:1602.02282, for annealing.
    """

    beta: Number = 1.0
    capacity: Number | None = None
    free_bits: float = 0.0
    num_particles: int = 1
    now: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.capacity is not None and self.free_bits:
            raise ValueError("capacity and free_bits are two answers to one question; choose one")
        self.at(0)

    def at(self, step: int) -> None:
        """Set what changes on the way, in place."""
        for name in ("beta", "capacity"):
            told: Any = getattr(self, name)
            value: Any = 0.0 if told is None else told(step) if callable(told) else told
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be at least 0 and finite; it is {value} at step {step}")
            self.now.setdefault(name, torch.zeros(())).fill_(value)

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Return minus the objective, (), of all rows."""
        parts = [self._once(model, guide, args, kwargs) for _ in range(self.num_particles)]
        return torch.stack(parts).mean() if len(parts) > 1 else parts[0]

    def _once(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Tensor:
        p, q = traces(model, guide, args, kwargs)
        told: Any = sum(site["log_prob_sum"] for name, site in samples(p) if name not in q or site["is_observed"])
        proposed = [(name, site) for name, site in samples(q) if not site["is_observed"] and name in p]
        factors: Any = sum(site["log_prob_sum"] for name, site in samples(q) if site["is_observed"] or name not in p)
        in_order = [n for n, _ in proposed] == [n for n, _ in samples(p) if n in q]
        divergences = [_divergence(site, p.nodes[name], in_order) for name, site in proposed]
        return factors - told + self._price(divergences)

    def _price(self, divergences: list[tuple[Tensor, Any, Any]]) -> Any:
        beta, capacity = (self.now[name] for name in ("beta", "capacity"))
        if self.capacity is None and not self.free_bits:
            return beta * sum(scale_and_mask(kl.sum(-1), scale, mask).sum() for kl, scale, mask in divergences)
        means, rows = [], 1.0
        for kl, scale, mask in divergences:
            kept = scale_and_mask(kl, 1.0, None if mask is None else mask[..., None]).flatten(0, -2)  # (here, K)
            means.append(kept.mean(0))
            rows = max(rows, float(scale) * len(kept))
        if self.capacity is None:
            return beta * rows * torch.cat(means).clamp(min=self.free_bits).sum()
        return beta * rows * (torch.cat(means).sum() - capacity).abs()


def traces(model: Any, guide: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Return the program's trace at a draw of the guide, and the guide's, with all that is scored."""
    q = poutine.trace(guide).get_trace(*args, **kwargs)
    p = poutine.trace(poutine.replay(model, trace=q)).get_trace(*args, **kwargs)
    p, q = prune_subsample_sites(p), prune_subsample_sites(q)
    p.compute_log_prob()
    q.compute_log_prob()
    return p, q


def samples(trace: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the trace's sample sites, by name."""
    return ((name, site) for name, site in trace.nodes.items() if site["type"] == "sample")


def _divergence(q: Any, p: Any, in_order: bool) -> tuple[Tensor, Any, Any]:
    """KL(q || p) by row and coordinate, (here, K), or (here, 1); its scale and mask."""
    own, prior = q["fn"], p["fn"]
    if in_order:
        while isinstance(own, Independent) and isinstance(prior, Independent) and own.event_dim == prior.event_dim:
            own, prior = own.base_dist, prior.base_dist
        try:
            kl = kl_divergence(own, prior)
            event = q["fn"].event_dim - own.event_dim
            return kl.reshape(*kl.shape[: kl.ndim - event], -1), p["scale"], p["mask"]
        except NotImplementedError:
            pass
    own, prior = q["fn"], p["fn"]
    return (own.log_prob(q["value"]) - prior.log_prob(q["value"]))[..., None], p["scale"], p["mask"]
