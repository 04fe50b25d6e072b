"""Curvature of a network's log density: the Gauss-Newton matrix, its diagonal, and its Kronecker factors.

    -H ~ sum_n J_n' Lambda_n J_n + prior's precision,   J_n = d f_n / d w,   Lambda_n the Fisher information of f_n

Lambda is the Hessian of KL(p(y | f_n) || p(y | f)) in f, so it is positive semi-definite for any likelihood.

Source: Martens (2020), JMLR 21, sections 8 and 9; Botev, Ritter and Barber (2017), ICML, for the factors.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import kl_divergence
from torch.func import jacrev, vmap

from inference.base import Unsupported
from inference.tracing.sites import is_data
from ppmodels.base import Data, HasNetwork, Theta

ELEMENTS = 5_000_000  # of the Jacobians that are held at once


@dataclass(frozen=True)
class Network:
    """A network at a point: weights by site, the other latents by site, and the data."""

    model: HasNetwork
    weights: Theta
    others: Theta
    data: Data

    @cached_property
    def fisher(self) -> Tensor:
        """Return Lambda, (N, K, K): how much a row's outputs are worth knowing, the whole data's scale included.

        Raises: Unsupported where no divergence is known for the observed sites.
        """
        with torch.no_grad():
            at = self.model.outputs(self.weights, self.data)  # (N, K)
            fixed = self._observed(at)
        f = at.clone().requires_grad_()
        total = torch.zeros((), dtype=f.dtype, device=f.device)
        for name, (law, scale) in self._observed(f).items():
            try:
                total = total + (scale * kl_divergence(fixed[name][0], law)).sum()
            except NotImplementedError:
                raise Unsupported(f"site {name!r} ~ {type(law).__name__} has no known Fisher information") from None
        (slope,) = torch.autograd.grad(total, f, create_graph=True)
        rows = [torch.autograd.grad(slope[:, k].sum(), f, retain_graph=True)[0] for k in range(f.shape[1])]
        return torch.stack(rows, 1).detach()

    def roots(self) -> Tensor:
        """Return S, (N, K, K), with S S' = Lambda."""
        values, vectors = torch.linalg.eigh(self.fisher)
        return vectors * values.clamp(min=0.0).sqrt()[:, None, :]

    def jacobians(self, names: list[str]) -> Iterator[tuple[slice, Tensor]]:
        """Yield rows and their J, (n, K, Q), in the weights of these names, a few rows at a time."""
        chosen = {name: self.weights[name] for name in names}
        rest = {name: value for name, value in self.weights.items() if name not in chosen}

        def outputs(some: Theta, given: Theta) -> Tensor:
            one = Data(1, {name: value[None] for name, value in given.items()})
            return self.model.outputs({**rest, **some}, one)[0]

        rows, size = len(next(iter(self.data.given.values()))), sum(value.numel() for value in chosen.values())
        outputs_each = self.model.outputs(self.weights, self.data.batch(torch.arange(1))).shape[1]
        block = max(1, ELEMENTS // (size * outputs_each))
        for start in range(0, rows, block):
            part = slice(start, min(rows, start + block))
            found = vmap(jacrev(outputs), (None, 0))(chosen, {k: v[part] for k, v in self.data.given.items()})
            yield part, torch.cat([found[name].flatten(2) for name in names], 2)

    def gauss_newton(self, names: list[str]) -> Tensor:
        """Return sum_n J' Lambda J over the weights of these names, (Q, Q)."""
        size = sum(self.weights[name].numel() for name in names)
        total, roots = self.weights[names[0]].new_zeros(size, size), self.roots()
        with torch.no_grad():
            for part, jacobian in self.jacobians(names):
                half = (roots[part].mT @ jacobian).flatten(0, 1)  # (n K, Q)
                total.addmm_(half.mT, half)
        return total

    def diagonal(self) -> Theta:
        """Return the diagonal of the Gauss-Newton matrix by site.

        Linear layers need their inputs and slopes alone, so memory does not grow with rows times weights.
        """
        linear = {name for name, layer in layers(self.model.module).items() if isinstance(layer, nn.Linear)}
        diagonal = {name: torch.zeros_like(value) for name, value in self.weights.items()}
        for layer, inputs, slopes in self.passes(linear):
            diagonal[f"{layer}.weight"] += slopes.square().mT @ inputs.square()
            if f"{layer}.bias" in diagonal:
                diagonal[f"{layer}.bias"] += slopes.square().sum(0)
        rest = [name for name in self.weights if name.rpartition(".")[0] not in linear]
        roots = self.roots() if rest else None
        for part, jacobian in self.jacobians(rest) if rest else ():
            assert roots is not None
            squares = (roots[part].mT @ jacobian).square().sum((0, 1)).split([self.weights[n].numel() for n in rest])
            for name, value in zip(rest, squares, strict=True):
                diagonal[name] += value.detach().reshape(diagonal[name].shape)
        return diagonal

    def passes(self, names: set[str]) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yield, for every column of S and every layer of these names, inputs (R, I) and slopes (R, O).

        Slopes are d (S' f) / d (the layer's output). R are the rows, and whatever axes a row has inside the layer.
        Raises: Unsupported where a layer is used more than once.
        """
        seen: dict[str, tuple[Tensor, Tensor]] = {}

        def watch(name: str) -> Callable[..., None]:
            def hook(_: Any, args: Any, output: Tensor) -> None:
                if name in seen:
                    raise Unsupported(f"layer {name!r} is used twice in one pass; take structure='ggn'")
                seen[name] = args[0], output

            return hook

        chosen = {name: layer for name, layer in layers(self.model.module).items() if name in names}
        hooks = [layer.register_forward_hook(watch(name)) for name, layer in chosen.items()]
        try:
            weights = {name: value.detach().requires_grad_() for name, value in self.weights.items()}
            with torch.enable_grad():
                f = self.model.outputs(weights, self.data)
        finally:
            for hook in hooks:
                hook.remove()
        roots = self.roots()
        for k in range(f.shape[1]):
            slopes = torch.autograd.grad(f, [output for _, output in seen.values()], roots[..., k], retain_graph=True)
            for (name, (inputs, _)), slope in zip(seen.items(), slopes, strict=True):
                yield name, inputs.detach().flatten(0, -2), slope.flatten(0, -2)

    def _observed(self, f: Tensor) -> dict[str, tuple[Any, Any]]:
        """The laws of the observed sites at outputs f, and the scale that a minibatch's rows have."""
        with pyro.validation_enabled(False):
            told = pyro.condition(self.model.observe, data={**self.others, **self.data.observed})
            trace: Any = poutine.trace(told).get_trace(f, self.data)
        data = {
            n: v for n, v in trace.nodes.items() if v["type"] == "sample" and n in self.data.observed and is_data(v)
        }
        return {name: (node["fn"], node["scale"]) for name, node in data.items()}


def layers(module: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that have parameters of their own, by name, in order."""
    return {name: layer for name, layer in module.named_modules() if list(layer.parameters(recurse=False))}


def precisions(model: HasNetwork, weights: Theta) -> Theta:
    """Return minus the second derivative of each weight's log prior, by site: for a Gaussian prior its precision."""
    with pyro.validation_enabled(False):
        trace: Any = poutine.trace(pyro.condition(model.weights, data=weights)).get_trace()
    free = {name: value.detach().clone().requires_grad_() for name, value in weights.items()}
    total: Any = sum(trace.nodes[name]["fn"].log_prob(w).sum() for name, w in free.items())
    slopes = torch.autograd.grad(total, list(free.values()), create_graph=True)
    bent = [slope.sum() for slope in slopes if slope.requires_grad]
    second = torch.autograd.grad(bent, list(free.values()), allow_unused=True) if bent else [None] * len(free)
    return {n: torch.zeros_like(w) if v is None else -v for (n, w), v in zip(free.items(), second, strict=True)}
