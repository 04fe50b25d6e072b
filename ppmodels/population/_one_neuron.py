"""One neuron given all others: the parts of which a coupled population's posterior is the product."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyro
import torch
from torch import Tensor

from ppmodels.base import Data, Theta
from ppmodels.population._bank import Bank

if TYPE_CHECKING:
    from ppmodels.population.glm import CoupledGLM


@dataclass(frozen=True)
class OneNeuron:
    """The program of a neuron that is told its features, (T, P), and its counts, (T,)."""

    model: "CoupledGLM"

    def __call__(self, features: Tensor, counts: Tensor) -> None:
        """Sample the neuron's latents, and score its counts."""
        theta = self.model.latents(self.model.windows(features))
        names = ("stimulus_weight", "history_weight", "coupling_weight")
        weights = [theta[name].flatten(-2) if theta[name].ndim > 1 else theta[name] for name in names if name in theta]
        drive = theta["baseline"] + features @ torch.cat(weights) if weights else theta["baseline"].expand(len(counts))
        pyro.factor("counts", self.model.law.log_prob(counts, drive, theta.get("dispersion")).sum())


def parts(model: "CoupledGLM", data: Data) -> Iterator[tuple[OneNeuron, tuple[Tensor, Tensor]]]:
    """Yield each neuron's program and its arguments; the bins that were not seen are left out."""
    if data.index is not None:
        raise ValueError("a minibatch has no parts: take all rows")
    own = model.windows(data.observed["counts"])
    bank = Bank(model, data, own)
    stimulus, coupling, _ = bank.sizes
    count, functions = model.neurons, own.coupling.shape[1]
    for n in range(count):
        others = torch.arange(count * functions).reshape(count, functions)[torch.arange(count) != n].flatten()
        mine = torch.arange(own.history.shape[1]) + n * own.history.shape[1]
        front = 1 + torch.arange(stimulus)
        ahead = 1 + stimulus + (0 if own.shared else coupling)
        pick = [front, ahead + mine] + ([1 + stimulus + others] if coupling else [])
        columns = torch.cat(pick).to(own.stimulus.device)
        kept = [(x[seen[:, n]][:, columns], y[seen[:, n], n]) for x, y, seen in bank.blocks()]
        yield OneNeuron(model), (torch.cat([x for x, _ in kept]), torch.cat([y for _, y in kept]))


def join(model: "CoupledGLM", draws: Sequence[Theta]) -> Theta:
    """Return sites (chain, draw, N, ...) of each neuron's (chain, draw, ...), with the filters lag by lag."""
    theta = {name: torch.stack([one[name] for one in draws], 2) for name in draws[0]}
    return model.with_filters(theta)
