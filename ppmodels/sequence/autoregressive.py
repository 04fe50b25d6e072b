"""Autoregressive sequence: a network foretells every value from those before it."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import pyro
import torch
from torch import Tensor, nn

from ppmodels.base import Data, Theta, dims
from ppmodels.sequence import _network
from ppmodels.sequence._autoregressive import Autoregressive
from ppmodels.sequence._readout import Emission, check_values, readout_of, sample_readout


@dataclass(frozen=True)
class AutoregressiveSequence:
    r"""Tokens, numbers or counts over time, each foretold by a state space (S4) or a transformer.

    .. math:: W_{kj} \sim N(0, s^2 / H),\; b_k \sim N(0, s^2),\; f_t = W\, network(y_{<t}) + b,\;
        y_t \sim Cat(softmax f_t),\; N(f_t, \sigma^2) \;\text{or}\; Poisson(e^{f_t})

    with s = `scale` and log sigma ~ N(-1, 1) unless `noise` is known. `svi` learns the network along with the last
    layer; `fixed_at` then leaves the last layer as all that is latent, for `laplace`, `mcmc` and every other back end.

    Latents:  weight (V, H), bias (V,); of gaussian values noise (), unit of y.
    Learned:  network, from y to features (N, T, H).
    Observed: y (N, T), tokens below V; V numbers or counts at a time are (N, T, V). Standardise numbers.
    Source:   Radford et al. (2019), section 2; Gu, Goel and Ré (2022), arXiv:2111.00396; last layer: Kristiadi,
              Hein and Hennig (2020), arXiv:2002.10118.
    """

    dim: int = 4  # V, tokens that there are, or columns of numbers or counts
    length: int = 6  # T
    emission: Emission = "categorical"
    kind: _network.Kind = "s4d"
    width: int = 8  # H
    layers: int = 1
    modes: int = 4  # of a state space, a channel: pairs of conjugate states
    heads: int = 2  # of a transformer
    scale: float = 1.0
    noise: float | None = None  # known sd of gaussian values
    network: nn.Module | None = field(default=None, repr=False)  # instead of one by `kind`; see `body`
    fixed: bool = False  # that network learns no more
    observed: ClassVar[tuple[str, ...]] = ("y",)

    __post_init__ = _network.check_fields

    @cached_property
    def body(self) -> nn.Module:
        """The network, causal: tokens (B, T), of which V says that a sequence begins, or (B, T, V) -> (B, T, H)."""
        tokens = self.emission == "categorical"
        return _network.network(self, self.dim + tokens, tokens)

    def check(self, data: Data) -> None:
        """Raise ValueError where a row cannot be one of this model's."""
        check_values(self, data.observed["y"], (self.length,))

    def inputs(self, rows: int) -> dict[str, Tensor]:
        return {}

    def model(self, data: Data) -> None:
        if not self.fixed:
            pyro.module("network", self.body)
        readout = sample_readout(self, self.width)
        event = dims("time") if self.emission == "categorical" else dims("time", "column")
        with data.plate():
            pyro.sample("y", Autoregressive(self.body, readout, self.length), infer=event)

    def fixed_at(self, body: nn.Module) -> "AutoregressiveSequence":
        """Return the model of the last layer alone, over a network that has learned, such as `fit.model.body`."""
        return replace(self, network=_network.learned(body), fixed=True)

    def generate(
        self,
        theta: Theta,
        count: int,
        past: Tensor | None = None,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Tensor:
        """Return the next values after a past (B, S, ...), or from the beginning, (B, count, ...).

        theta: the last layer by site, one draw or a mean. temperature, top_k, top_p: of tokens, as in `nn.generate`.
        """
        law = Autoregressive(self.body, readout_of(self, theta), self.length)
        past = torch.zeros(1, 0, *law.event_shape[1:]) if past is None else past
        return law.after(past, count, temperature, top_k, top_p)
