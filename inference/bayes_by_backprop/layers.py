"""Less noise from the same normals: outputs of layers are drawn instead of weights, or each row has its own signs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence
from torch.func import functional_call

from inference.base import Unsupported
from inference.density import Density
from inference.density.program import transform_of
from ppmodels.base import Data, HasNetwork, Theta

ESTIMATORS = ("weights", "local", "flipout")
LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)  # layers that are linear in their weights, row by row
TINY = 1e-12


@dataclass
class Layered:
    """The ELBO of a network under independent normals, rows drawn apart from one another.

    estimator: "local", a layer's outputs are normal with mean x m' and variance x^2 (s^2)'; "flipout", the weights'
    noise is shared and its signs are each row's own.
    """

    model: HasNetwork
    density: Density
    data: Data
    estimator: str

    def __post_init__(self) -> None:
        for name, layer in self.model.module.named_modules():
            if list(layer.parameters(recurse=False)) and not isinstance(layer, LINEAR):
                raise Unsupported(
                    f"layer {name!r} is {type(layer).__name__}, whose outputs are not a sum over its weights; "
                    "take estimator='weights'"
                )
            if isinstance(layer, LINEAR) and getattr(layer, "padding_mode", "zeros") != "zeros":
                raise Unsupported(f"layer {name!r} pads with its inputs; take estimator='weights'")

    def loss(self, index: Tensor | None, phi: Tensor, particles: int) -> Tensor:
        """Return minus the ELBO, (), at phi = (mu, rho), (2, dim), estimated from these rows."""
        data = self.data if index is None else self.data.batch(index)
        return -torch.stack([self._elbo(data, phi) for _ in range(particles)]).mean()

    def _elbo(self, data: Data, phi: Tensor) -> Tensor:
        mu, sigma = self._sites(phi[0]), self._sites(nn.functional.softplus(phi[1]))
        names = [name for name, _ in self.model.module.named_parameters()]
        loc, scale = ({name: value[name] for name in names} for value in (mu, sigma))
        with perturbed(self.model.module, scale, self.estimator):
            f = self.model.outputs(loc, data)
        total = -self._divergence(loc, scale)
        free: Theta = {}
        for name in mu.keys() - loc.keys():
            q = Normal(mu[name], sigma[name])
            free[name] = q.rsample()
            total = total + q.entropy().sum()
        return total + self._log_density(f, data, free)

    def _sites(self, flat: Tensor) -> Theta:
        return {s.name: flat[s.start : s.stop].reshape(s.free) for s in self.density.layout.sites}

    def _divergence(self, loc: Theta, scale: Theta) -> Tensor:
        """KL(q || prior) of all weights: in closed form, or by one draw where there is none."""
        with pyro.validation_enabled(False):
            trace: Any = poutine.trace(pyro.condition(self.model.weights, data=loc)).get_trace()
        total = next(iter(loc.values())).new_zeros(())
        for name in loc:
            law, q = trace.nodes[name]["fn"], Normal(loc[name], scale[name])
            base = law.base_dist if isinstance(law, Independent) else law
            try:
                total = total + kl_divergence(q, base).sum()
            except NotImplementedError:
                w = q.rsample()
                total = total + (q.log_prob(w) - base.log_prob(w)).sum()
        return total

    def _log_density(self, f: Tensor, data: Data, free: Theta) -> Tensor:
        """Log p(observed, other latents | f), with the other latents' log |det Jacobian|."""
        found: list[Tensor] = []

        class Given(poutine.messenger.Messenger):
            def _pyro_sample(self, msg: Any) -> None:
                if msg["name"] in free and not msg["is_observed"]:
                    transform = transform_of(msg["fn"], msg["name"])
                    value = transform(free[msg["name"]])
                    found.append(transform.log_abs_det_jacobian(free[msg["name"]], value).sum())
                    msg["value"], msg["done"] = value, True

        with pyro.validation_enabled(False), Given():
            told = pyro.condition(self.model.observe, data=dict(data.observed))
            trace = poutine.trace(told).get_trace(f, data)
        return torch.as_tensor(trace.log_prob_sum()) + sum(found)


@contextmanager
def perturbed(module: nn.Module, scale: Theta, estimator: str) -> Iterator[None]:
    """Inside, the module's linear layers add to their outputs the noise of weights with these sds."""
    noise = {"local": _local, "flipout": _flipout}[estimator]
    hooks = []
    for name, layer in module.named_modules():
        if isinstance(layer, LINEAR):
            own = {key: scale[f"{name}.{key}"] for key, _ in layer.named_parameters(recurse=False)}
            hooks.append(layer.register_forward_hook(_adding(noise, own)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _adding(noise: Callable[..., Tensor], scale: Theta) -> Callable[..., Tensor | None]:
    inside = [False]  # the layer is called once more for its noise, and must not add any then

    def hook(layer: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        if inside[0]:
            return None
        inside[0] = True
        try:
            return output + noise(layer, args[0], output, scale)
        finally:
            inside[0] = False

    return hook


def _local(layer: nn.Module, x: Tensor, output: Tensor, scale: Theta) -> Tensor:
    variance = functional_call(layer, {key: value.square() for key, value in scale.items()}, (x.square(),))
    return (variance + TINY).sqrt() * torch.randn_like(output)


def _flipout(layer: nn.Module, x: Tensor, output: Tensor, scale: Theta) -> Tensor:
    ahead, behind = _signs(layer, x), _signs(layer, output)
    drawn = {key: value * torch.randn_like(value) for key, value in scale.items()}
    bias = drawn.pop("bias", None)
    zero = {} if bias is None else {"bias": torch.zeros_like(bias)}
    turned = functional_call(layer, {**drawn, **zero}, (x * ahead,)) * behind
    if bias is None:
        return turned
    return turned + (bias if isinstance(layer, nn.Linear) else bias.reshape(-1, *(1 for _ in output.shape[2:])))


def _signs(layer: nn.Module, value: Tensor) -> Tensor:
    """Random signs, one a row and channel."""
    channel = value.ndim - 1 if isinstance(layer, nn.Linear) else 1
    shape = [size if axis in (0, channel) else 1 for axis, size in enumerate(value.shape)]
    return 2.0 * torch.randint(2, shape, device=value.device).to(value) - 1
