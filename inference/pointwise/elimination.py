"""Discrete sites summed out exactly, for many draws at once, from a program's log factors.

The factors of one draw come from one enumerated run; draws are one more plate along which nothing is summed.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import config_enumerate
from pyro.ops.contract import contract_to_tensor
from pyro.ops.rings import Ring
from pyro.poutine.enum_messenger import EnumMessenger
from torch import Tensor

from inference.tracing.sites import At, Blocks, Program, is_data, sample_nodes

DRAW = "\x00"  # the symbol of the axis of draws; Pyro's own symbols are letters


@dataclass(frozen=True)
class Factor:
    """log p of one site, and which axis of it is which plate or which enumerated site.

    symbols: one a batch axis, from the left; an axis of length one has none.
    plates: the symbols of the plates that the site is in, from the left.
    enumerated: the symbol of its own axis of values, where the site is summed out.
    """

    name: str
    symbols: tuple[str | None, ...]
    plates: tuple[str, ...]
    is_data: bool
    enumerated: str | None
    log_prob: Tensor

    def packed(self) -> Tensor:
        """Return the log factor, (draws, ...), its axes named as Pyro's contractions want them."""
        shape = [n for n, symbol in zip(self.log_prob.shape[1:], self.symbols, strict=True) if symbol]
        term = self.log_prob.reshape(len(self.log_prob), *shape)
        return _named(term, DRAW + "".join(filter(None, self.symbols)))


class Factors:
    """The log factors of a program at one block of rows.

    sizes: length of each plate and each enumerated axis, by symbol.
    plate: name of each plate, by symbol.
    """

    def __init__(self, program: Program, block: Blocks, draw: Mapping[str, Tensor]) -> None:
        self.program, self.block = program, block
        trace = self._trace(draw)
        trace.symbolize_dims()
        self.plate = {symbol: name for name, symbol in trace.plate_to_symbol.items()}
        self.sizes: dict[str, int] = {}
        self.factors = [self._factor(node) for node in sample_nodes(trace).values()]

    def log_probs(self, draw: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return each site's log p at one draw, its minibatch scale left out, its mask applied."""
        return {name: _log_prob(node) for name, node in sample_nodes(self._trace(draw)).items()}

    def at(self, log_probs: Mapping[str, Tensor]) -> list[Factor]:
        """Return the factors with these values, each (draws, ...)."""
        return [replace(factor, log_prob=log_probs[factor.name]) for factor in self.factors]

    def _trace(self, draw: Mapping[str, Tensor]) -> Any:
        given = At(draw, self.block)(self.program.call)
        enumerated = Enumeration(first_available_dim=-1 - self.program.nesting)(config_enumerate(given))
        with pyro.validation_enabled(False):
            trace = poutine.trace(enumerated).get_trace(*self.program.args, **self.program.kwargs)
            trace.compute_log_prob()
        return trace

    def _factor(self, node: Any) -> Factor:
        value, named = _log_prob(node), node["infer"]["_dim_to_symbol"]
        symbols = tuple(named[i - value.ndim] if n > 1 else None for i, n in enumerate(value.shape))
        self.sizes |= {s: n for s, n in zip(symbols, value.shape, strict=True) if s}
        frames = sorted((f for f in node["cond_indep_stack"] if f.vectorized), key=lambda f: f.dim)
        self.sizes |= {named[f.dim]: f.size for f in frames}
        own = node["infer"].get("_enumerate_dim")
        enumerated = None if own is None else named[own]
        plates = tuple(named[f.dim] for f in frames)
        return Factor(node["name"], symbols, plates, is_data(node), enumerated, value)


class Enumeration(EnumMessenger):
    """Pyro's own, made fit for `torch.vmap` over draws: it reads `.data` of a value, only for its shape."""

    def _pyro_post_sample(self, msg: Any) -> None:
        value = msg["value"]
        if isinstance(value, Tensor):
            msg["value"] = torch.empty(value.shape, device="meta")
        super()._pyro_post_sample(msg)
        msg["value"] = value


def components(factors: Sequence[Factor], plates: Mapping[str, str]) -> list[list[Factor]]:
    """Group the factors that share a summed-out site; a factor without one stands alone."""
    groups: list[tuple[set[str], list[Factor]]] = []
    for factor in factors:
        mine = {s for s in (*factor.symbols, factor.enumerated) if s and s not in plates}
        joined = [group for group in groups if mine & group[0]]
        groups = [group for group in groups if group not in joined]
        symbols = mine.union(*(group[0] for group in joined))
        groups.append((symbols, [f for group in joined for f in group[1]] + [factor]))
    order = {id(factor): i for i, factor in enumerate(factors)}
    return [sorted(group, key=lambda f: order[id(f)]) for _, group in groups]


def shared_plates(component: Sequence[Factor]) -> tuple[str, ...]:
    """Return the plates along which a component falls apart: those of all its summed-out sites, or all."""
    summed = [factor for factor in component if factor.enumerated] or list(component)
    return tuple(p for p in summed[0].plates if all(p in factor.plates for factor in summed))


def log_sum(factors: Sequence[Factor], target: Sequence[str], sizes: Mapping[str, int], extra: Any = ()) -> Tensor:
    """Return log sum_z of the product of the factors, by element of the target plates: (draws, *target).

    extra: further (plates, packed term) pairs, such as the probes of `marginals`.
    """
    tree: OrderedDict[frozenset[str], list[Tensor]] = OrderedDict()
    named = [(factor.plates, factor.packed()) for factor in factors]
    plates = {DRAW, *target}.union(*(p for p, _ in [*named, *extra]))
    for own, term in [*named, *extra]:
        tree.setdefault(frozenset([DRAW, *own]), []).append(term)
    summed = {d for _, term in [*named, *extra] for d in _dims(term)} - plates
    draws = len(named[0][1])
    ring = _LogRing({**sizes, DRAW: draws})
    result = contract_to_tensor(tree, summed, frozenset([DRAW, *target]), ring=ring)
    order = _dims(result)
    result = result.permute([order.index(s) for s in (DRAW, *target) if s in order])
    shape = [n if s in order else 1 for s, n in [(DRAW, draws), *((s, sizes[s]) for s in target)]]
    return result.reshape(shape).expand(draws, *(sizes[s] for s in target))


def marginals(factors: Sequence[Factor], sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """Return p(z | data, draw) of each summed-out site: (draws, *plates, values).

    The derivative of log sum_z by a term added to site z's log factor is that site's marginal.
    """
    probes, extra = {}, []
    for factor in factors:
        if factor.enumerated:
            axes = (*factor.plates, factor.enumerated)
            shape = [sizes.get(s, 1) for s in axes]
            probe = factor.log_prob.new_zeros(len(factor.log_prob), *shape, requires_grad=True)
            kept = [s for s in axes if s in sizes]
            term = probe.reshape(len(probe), *(sizes[s] for s in kept))
            extra.append((factor.plates, _named(term, DRAW + "".join(kept))))
            probes[factor.name] = probe
    total = log_sum(factors, (), sizes, extra).sum()
    return dict(zip(probes, torch.autograd.grad(total, list(probes.values())), strict=True))


class _LogRing(Ring):
    """Sums in log space by log-sum-exp, one variable at a time: no underflow where factors disagree."""

    def __init__(self, sizes: dict[str, int]) -> None:
        super().__init__()
        self._dim_to_size = sizes

    def sumproduct(self, terms: Any, dims: Any) -> Tensor:
        terms, left = list(terms), set(dims)
        while left:  # the variable whose elimination makes the smallest table goes first
            dim = min(sorted(left), key=lambda d: self._cost(terms, d))
            inside = [term for term in terms if dim in _dims(term)]
            terms = [term for term in terms if dim not in _dims(term)]
            if inside:
                table = self._product(inside)
                axis = _dims(table).index(dim)
                terms.append(_named(table.logsumexp(axis), _dims(table).replace(dim, "")))
            left.remove(dim)
        return self._product(terms)

    def product(self, term: Tensor, ordinal: Any) -> Tensor:
        for dim in sorted(ordinal):
            if dim in _dims(term):
                axis = _dims(term).index(dim)
                term = _named(term.sum(axis), _dims(term).replace(dim, ""))
            else:
                term = _named(term * self._dim_to_size[dim], _dims(term))
        return term

    def inv(self, term: Tensor) -> Tensor:
        return _named(-term, _dims(term))

    def _cost(self, terms: Sequence[Tensor], dim: str) -> int:
        size = 1
        for d in {d for term in terms if dim in _dims(term) for d in _dims(term)}:
            size *= self._dim_to_size[d]
        return size

    def _product(self, terms: Sequence[Tensor]) -> Tensor:
        dims = "".join(sorted({d for term in terms for d in _dims(term)}))
        total: Tensor | float = 0.0
        for term in terms:
            order = sorted(range(term.ndim), key=lambda i, t=term: _dims(t)[i])
            shape = [self._dim_to_size[d] if d in _dims(term) else 1 for d in dims]
            total = total + term.permute(order).reshape(shape)
        return _named(torch.as_tensor(total), dims)


def _log_prob(node: Any) -> Tensor:
    value, mask = node["unscaled_log_prob"], node["mask"]
    if mask is None or mask is True:
        return value
    return torch.where(torch.as_tensor(mask, device=value.device), value, torch.zeros_like(value))


def _named(term: Tensor, dims: str) -> Tensor:
    term = term.view_as(term)  # the name belongs to this use of the tensor alone
    term._pyro_dims = dims  # pyright: ignore[reportAttributeAccessIssue]
    return term


def _dims(term: Tensor) -> str:
    return term._pyro_dims  # pyright: ignore[reportAttributeAccessIssue]
