"""One neuron given all others: the parts of which a coupled population's posterior is the product."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppmodels.base import Data, Theta
from ppmodels.population import _newton
from ppmodels.population._bank import Bank

Part = tuple["OneNeuron", tuple[Tensor, ...]]


@dataclass(frozen=True)
class OneNeuron:
    """The program of a neuron that is told its features, (T, P), the first of them 1, and its counts, (T,)."""

    model: Any

    def __call__(self, features: Tensor, counts: Tensor, *gaussian: Tensor) -> None:
        """Sample the neuron's latents, and score its counts.

        gaussian: where the prior is one: its mean (P,) and precision (P, P), and a mode (P,) with the root (P, P) of
            the covariance there. Then the weights are mode + root z, and z is all but standard normal.
        """
        own = self.model.windows(features)
        theta = self._around(own, *gaussian) if gaussian else self.model.latents(own)
        names = [name for name in ("stimulus_weight", "history_weight", "coupling_weight") if name in theta]
        weights = torch.cat([theta["baseline"].reshape(1), *(theta[name].reshape(-1) for name in names)])
        law = self.model.law
        if (law.observation, law.link) == ("poisson", "exp"):  # what depends on data alone is computed once
            known = counts.sum() * math.log(law.bin_size) - torch.lgamma(counts + 1).sum()
            every = (counts @ features) @ weights + known - law.bin_size * (features @ weights).exp().sum()
        else:
            every = law.log_prob(counts, features @ weights, theta.get("dispersion")).sum()
        pyro.factor("counts", every)

    def _around(self, own: Any, mean: Tensor, precision: Tensor, mode: Tensor, root: Tensor) -> Theta:
        """The sites' values, computed from z."""
        flat = dist.Normal(torch.zeros_like(mode), 1.0).to_event(1).mask(False)
        weights = mode + root @ pyro.sample("z", flat)
        away = weights - mean
        pyro.factor("prior", -0.5 * (away * (precision @ away)).sum())
        shapes = {"baseline": (), "stimulus_weight": (self.model.stimuli, own.stimulus.shape[1])}
        shapes["history_weight"] = (own.history.shape[1],)
        shapes["coupling_weight"] = (self.model.neurons - 1, own.coupling.shape[1])
        theta, at = {}, 0
        for name, shape in shapes.items():
            size = int(torch.Size(shape).numel())
            if size:
                theta[name] = pyro.deterministic(name, weights[at : at + size].reshape(shape), event_dim=len(shape))
            at += size
        return theta


def parts(model: Any, data: Data) -> Iterator[Part]:
    """Yield each neuron's program and its arguments; the bins that were not seen are left out.

    Where the priors are Gaussian and the law is concave, weights are counted from the mode in units of the
    curvature there, so that every sampler begins where others end their warm-up.
    """
    if data.index is not None:
        raise ValueError("a minibatch has no parts: take all rows")
    bank = Bank(model, data, model.windows(data.observed["counts"]))
    peaks = _newton.curvatures(model, data) if _newton.is_concave(model) else None
    for n in range(model.neurons):
        columns = _columns(bank, n)
        kept = [(x[seen[:, n]][:, columns], y[seen[:, n], n]) for x, y, seen in bank.blocks()]
        arguments = [torch.cat([x for x, _ in kept]), torch.cat([y for _, y in kept])]
        if peaks is not None:
            mean, precision, mode, curvature = (value[n] for value in peaks)
            pairs = columns[:, None], columns
            root = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(curvature[pairs])))
            arguments += [value.to(arguments[0]) for value in (mean[columns], precision[pairs], mode[columns], root)]
        yield OneNeuron(model), tuple(arguments)


def join(model: Any, draws: Sequence[Theta]) -> Theta:
    """Return sites (chain, draw, N, ...) of each neuron's (chain, draw, ...), with the filters lag by lag."""
    theta = {name: torch.stack([one[name] for one in draws], 2) for name in draws[0] if name != "z"}
    return model.with_filters(theta)


def _columns(bank: Bank, neuron: int) -> Tensor:
    """A neuron's columns in the bank: 1, stimulus, own history, the others' coupling."""
    (stimulus, coupling, _), own, count = bank.sizes, bank.own, bank.model.neurons
    history, functions = own.history.shape[1], own.coupling.shape[1]
    first = 1 + stimulus
    others = torch.arange(count * functions).reshape(count, functions)[torch.arange(count) != neuron].flatten()
    mine = torch.arange(history) + neuron * history + first + (0 if own.shared else coupling)
    pick = [torch.arange(first), mine, *([first + others] if coupling else [])]
    return torch.cat(pick).to(own.stimulus.device)
