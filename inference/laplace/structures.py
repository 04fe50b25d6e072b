"""Which part of the curvature is kept: all of it, its diagonal, factors of layers, the last layer, some weights."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from inference.base import Unsupported
from inference.density import Density
from inference.density.inputs import no_validation
from inference.density.program import constrained
from inference.laplace.gaussians import Dense, Diagonal, Gaussian, Kronecker, Layer
from inference.laplace.network import Network, layers, precisions
from inference.optimum import summit
from ppmodels.base import HasNetwork, Theta

STRUCTURES = ("full", "ggn", "diagonal", "kfac", "last-layer", "subnetwork")


@dataclass(frozen=True)
class Curvature:
    """Minus the Hessian of a density at x, (dim,), or what stands for it in a network."""

    density: Density
    x: Tensor
    model: Any
    size: int | None = None  # coordinates of a subnetwork
    hessian: Tensor | None = None  # where it is known already
    known: "Curvature | None" = None  # at this x under other fields, which may share the network's part of it

    def around(self, structure: str) -> Gaussian:
        """Return the Gaussian of this structure, centred at zero.

        Raises: Unsupported where the model has no such structure, or where the density does not fall.
        """
        network = isinstance(self.model, HasNetwork)
        if structure == "full":
            return self._dense(-self._hessian(), torch.arange(self.density.dim))
        if structure == "diagonal":
            return Diagonal(self._positive(self._diagonal()))
        if structure == "subnetwork":
            places = self._diagonal().argsort()[: self.size or max(1, self.density.dim // 10)].sort().values
            return self._dense(self._block(places), places)
        if not network:
            raise Unsupported(f"structure {structure!r} looks into a network's layers; this model has none")
        if structure == "kfac":
            return self._kronecker()
        last = [name for name in self._names if name.rpartition(".")[0] == list(layers(self.model.module))[-1]]
        names = self._names if structure == "ggn" else last
        return self._dense(self._whole(names), self._places(names, others=True))

    @cached_property
    def network(self) -> Network:
        """The network at x."""
        if self.known is not None and not self.known.network.others:  # free weights alone: the same values
            return replace(self.known.network, model=self.model)
        density, sites = self.density, [site.name for site in self.density.layout.sites]
        with torch.no_grad(), no_validation():  # the program itself, once: a trace costs more than one point is worth
            found = constrained(density.program, density.layout)(self.x, density.args, density.kwargs)
        values = dict(zip(sites, found, strict=False))
        weights = {name: values[name] for name in self._names}
        others = {name: values[name] for name in sites if name not in weights}
        return Network(self.model, weights, others, self.density.args[0])

    @property
    def _names(self) -> list[str]:
        names = [name for name, _ in self.model.module.named_parameters()]
        for name in names:
            site = next((site for site in self.density.layout.sites if site.name == name), None)
            if site is None or site.free != site.shape:
                raise Unsupported(f"weight {name!r} is not a free latent site, so its layer has no Gaussian")
        return names

    def _hessian(self) -> Tensor:
        hessian = self.density.hessian(self.x).detach() if self.hessian is None else self.hessian
        level = summit.flat(self.density, hessian)
        if level is not None:
            raise Unsupported(
                f"minus the Hessian at the mode is not positive definite: along site {level.site!r} it has the "
                f"eigenvalue {level.eigenvalue:.3g}, so there is no Gaussian; is that site identified?"
            )
        return hessian

    def _diagonal(self) -> Tensor:
        if not isinstance(self.model, HasNetwork):
            return -self.density.hessian(self.x).detach().diagonal()
        prior = precisions(self.model, self.network.weights)
        found = {name: value + prior[name] for name, value in self._diagonals.items()}
        return self._joined(found)

    def _block(self, places: Tensor) -> Tensor:
        """Minus the Hessian of these coordinates; of a network, the Gauss-Newton matrix."""
        if not isinstance(self.model, HasNetwork):
            return -self.density.hessian(self.x).detach()[places][:, places]
        order = self._places(self._names, others=True)
        whole = self._whole(self._names)
        where = torch.empty_like(order)
        where[order] = torch.arange(len(order), device=order.device)
        return whole[where[places]][:, where[places]]

    def _whole(self, names: list[str]) -> Tensor:
        """The Gauss-Newton matrix and the prior's precision of these weights, and the block of the other sites."""
        prior = precisions(self.model, self.network.weights)
        precision = torch.diag(torch.cat([prior[name].flatten() for name in names]))
        return torch.block_diag(self._gauss_newton(tuple(names)) + precision, self._others())

    @cached_property
    def _ratio(self) -> Tensor | None:
        """The network's information as a multiple of that under the known fields; None where it is no multiple."""
        if self.known is None:
            return None
        ours, theirs = self.network.fisher, self.known.network.fisher
        place = theirs.abs().argmax()
        ratio = ours.flatten()[place] / theirs.flatten()[place]
        return ratio if torch.allclose(ours, ratio * theirs, rtol=1e-10, atol=0.0) else None

    @cached_property
    def _diagonals(self) -> Theta:
        if self.known is None or self._ratio is None:
            return self.network.diagonal()
        return {name: self._ratio * value for name, value in self.known._diagonals.items()}

    def _gauss_newton(self, names: tuple[str, ...]) -> Tensor:
        if names not in self._made:
            whole = None if self.known is None or self._ratio is None else self._ratio * self.known._gauss_newton(names)
            self._made[names] = self.network.gauss_newton(list(names)) if whole is None else whole
        return self._made[names]

    @cached_property
    def _made(self) -> dict[tuple[str, ...], Tensor]:
        """Gauss-Newton matrices of weights by their names."""
        return {}

    @cached_property
    def _factors(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Of every layer sum_n a a', its inputs' second moments, and mean_n g g', its slopes'."""
        if self.known is not None and self._ratio is not None:
            return {name: (a, self._ratio * g) for name, (a, g) in self.known._factors.items()}
        network, modules = self.network, layers(self.model.module)
        for name, layer in modules.items():
            if not isinstance(layer, nn.Linear):
                kind = type(layer).__name__
                raise Unsupported(f"layer {name!r} is {kind}, and kfac knows Linear; take 'diagonal' or 'last-layer'")
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for name, inputs, slopes in network.passes(set(modules)):
            outer = slopes.mT @ slopes / len(next(iter(network.data.given.values())))
            if name in found:
                found[name] = found[name][0], found[name][1] + outer
                continue
            ones = [torch.ones_like(inputs[:, :1])] if f"{name}.bias" in network.weights else []
            a = torch.cat([inputs, *ones], 1)
            found[name] = a.mT @ a, outer
        return found

    def _others(self) -> Tensor:
        """Minus the exact Hessian of the sites that are not weights, (R, R); uncorrelated with them, as in Fisher's."""
        places = self._places([], others=True)
        if not len(places):
            return self.x.new_zeros(0, 0)

        def log_prob(some: Tensor) -> Tensor:
            return self.density.log_prob(self.x.index_put((places,), some))

        hessian = torch.autograd.functional.hessian(log_prob, self.x[places])
        assert isinstance(hessian, Tensor)
        return -0.5 * (hessian + hessian.mT)

    def _kronecker(self) -> Kronecker:
        factors, found = self._factors, []
        prior = precisions(self.model, self.network.weights)
        for name, (a, g) in factors.items():
            root = self._column_sds(name, prior)
            turned = torch.linalg.eigh(root[:, None] * a * root), torch.linalg.eigh(g)
            found.append(Layer(self._layer_places(name), root, *turned))
        others = self._others()
        rest = self._dense(others, self._places([], others=True)) if len(others) else None
        return Kronecker(tuple(found), rest)

    def _column_sds(self, layer: str, prior: Theta) -> Tensor:
        """The prior sds of a layer's columns, the bias last, (I,)."""
        weight = prior[f"{layer}.weight"]
        columns = [weight, prior[f"{layer}.bias"][:, None]] if f"{layer}.bias" in prior else [weight]
        whole = torch.cat(columns, 1)  # (O, I)
        if not bool((whole > 0).all()) or not torch.allclose(whole, whole[:1].expand_as(whole)):
            raise Unsupported(f"kfac needs a Gaussian prior that all units of layer {layer!r} share; take 'diagonal'")
        return whole[0].rsqrt()

    def _layer_places(self, layer: str) -> Tensor:
        """Where a layer's weights stand in the flat vector, the bias as a last column, (O, I)."""
        shape = self.network.weights[f"{layer}.weight"].shape
        weight = self._places([f"{layer}.weight"]).reshape(shape)
        if f"{layer}.bias" not in self._names:
            return weight
        return torch.cat([weight, self._places([f"{layer}.bias"])[:, None]], 1)

    def _places(self, names: list[str], others: bool = False) -> Tensor:
        """Coordinates of these sites in their order, and of those that are not weights."""
        weights, sites = set(self._names), {site.name: site for site in self.density.layout.sites}
        chosen = [*names, *([name for name in sites if name not in weights] if others else [])]
        ranges = [torch.arange(sites[name].start, sites[name].stop) for name in chosen]
        return torch.cat(ranges) if ranges else torch.zeros(0, dtype=torch.long)

    def _joined(self, diagonal: Theta) -> Tensor:
        """Diagonals of the weights by site, and those of the other sites, in the flat vector, (dim,)."""
        found = torch.empty_like(self.x)
        for name, value in diagonal.items():
            found[self._places([name])] = value.flatten()
        rest = self._places([], others=True)
        found[rest] = self._others().diagonal()
        return found

    def _positive(self, precision: Tensor) -> Tensor:
        bad = (~(precision > 0)).nonzero()
        if len(bad):
            site = next(s.name for s in self.density.layout.sites if s.start <= int(bad[0]) < s.stop)
            raise Unsupported(f"the density does not fall along site {site!r} at the mode, so there is no Gaussian")
        return precision

    def _dense(self, precision: Tensor, places: Tensor) -> Dense:
        factor, failed = torch.linalg.cholesky_ex(precision)
        if int(failed):
            site = next(s.name for s in self.density.layout.sites if s.start <= int(places[int(failed) - 1]) < s.stop)
            raise Unsupported(f"the curvature at the mode is not positive definite along site {site!r}")
        return Dense(factor, places, self.density.dim)
