"""All neurons' features, block by block: the design matrix that a population shares, never held whole unless small."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ppmodels.base import Data, Theta
from ppmodels.population._priors import smooth_factor
from ppmodels.population._self_driven import square
from ppmodels.population._windows import Windows
from ppmodels.population.lagging import lagged

BINS = 8192  # of a block
KEPT = 2**30  # bytes of features up to which they are kept between passes, and made anew beyond
Block = tuple[Tensor, Tensor, Tensor]


@dataclass
class Bank:
    """Columns 1, stimulus (D A), coupling (N K), history (N H), of which a neuron weighs some.

    Where history and coupling have the same functions, a neuron's history is its own coupling columns. Lags are
    never laid out: spikes are filtered block by block, so memory does not grow with the window.
    """

    model: Any
    data: Data
    own: Windows
    _kept: list[Block] = field(default_factory=list, repr=False)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Numbers of stimulus, coupling and history columns."""
        model, own = self.model, self.own
        shared = self.own.shared
        coupled = own.coupling.shape[1] and (model.neurons > 1 or shared)
        coupling = model.neurons * own.coupling.shape[1] if coupled else 0
        history = 0 if shared else model.neurons * own.history.shape[1]
        return model.stimuli * own.stimulus.shape[1], coupling, history

    def blocks(self) -> Iterator[Block]:
        """Yield features (n, P), counts (n, N) and which are seen (n, N), of some bins at a time."""
        if self._kept:
            yield from self._kept
            return
        total = self.data.observed["counts"]
        size = total.shape[0] * total.shape[1] * (1 + sum(self.sizes)) * total.element_size()
        made: list[Block] = []
        for block in self._made():
            if size <= KEPT:
                made.append(block)
            yield block
        self._kept = made

    def _made(self) -> Iterator[Block]:
        counts = self.data.observed["counts"]
        rows, bins, _ = counts.shape
        some = max(1, BINS // bins)
        for row in range(0, rows, some):
            for start in range(0, bins, BINS):
                yield self._block(slice(row, row + some), start, min(start + BINS, bins))

    def _block(self, rows: slice, start: int, stop: int) -> Block:
        given, own = self.data.given, self.own
        counts, past = self.data.observed["counts"][rows], given["past"][rows]
        signal = given["stimulus"][rows, start : stop + own.lead]
        begin = start - own.past
        before = [past[:, start:], counts[:, : max(stop - 1, 0)]] if begin < 0 else [counts[:, begin : stop - 1]]
        series = torch.cat(before, 1)  # (r, L + n - 1, N)
        y, seen = counts[:, start:stop], given["seen"][rows, start:stop] > 0
        parts = [y.new_ones(*y.shape[:2], 1), lagged(signal, own.stimulus).flatten(-2)]
        _, coupling, history = self.sizes
        parts += [lagged(series, own.coupling).flatten(-2)] if coupling else []
        parts += [lagged(series, own.history).flatten(-2)] if history else []
        return torch.cat(parts, -1).flatten(0, 1), y.flatten(0, 1), seen.flatten(0, 1)

    def mask(self) -> Tensor:
        """Which columns a neuron weighs, (N, P)."""
        neurons, (stimulus, coupling, history) = self.model.neurons, self.sizes
        like = self.own.stimulus
        eye, rest = torch.eye(neurons).to(like), like.new_ones(neurons, 1 + stimulus)
        mixed = like.new_ones(neurons, neurons) if self.own.shared else 1 - eye
        parts = [rest]
        parts += [mixed.repeat_interleave(self.own.coupling.shape[1], 1)] if coupling else []
        parts += [eye.repeat_interleave(self.own.history.shape[1], 1)] if history else []
        return torch.cat(parts, 1) > 0

    def prior(self) -> tuple[Tensor, Tensor]:
        """Return the Gaussian prior's mean (P,) and precision (N, P, P) of the weights of each neuron, float64."""
        model, neurons, sizes = self.model, self.model.neurons, self.sizes
        width = 1 + sum(sizes)
        mean = torch.zeros(width, dtype=torch.float64)
        mean[0] = model.law.rest
        precision = torch.eye(width, dtype=torch.float64).repeat(neurons, 1, 1)
        precision[:, 0, 0] = model.spread**-2
        stimulus, history = (self._precision(b, model.filters) for b in (self.own.stimulus, self.own.history))
        coupling = self._precision(self.own.coupling, model.couplings)
        at = 1
        for _ in range(model.stimuli):
            at = _fill(precision, slice(None), at, stimulus)
        for pre in range(neurons) if sizes[1] else ():
            if self.own.shared:
                _fill(precision, pre, at, history)
                precision_of_others = [n for n in range(neurons) if n != pre]
                at = _fill(precision, precision_of_others, at, coupling)
            else:
                at = _fill(precision, slice(None), at, coupling)
        for _ in range(neurons) if sizes[2] else ():
            at = _fill(precision, slice(None), at, history)
        return mean, precision

    def theta(self, weights: Tensor) -> Theta:
        """Return the sites' values of weights (..., N, P)."""
        neurons, (stimulus, coupling, _) = self.model.neurons, self.sizes
        batch, own = weights.shape[:-2], self.own
        found = {"baseline": weights[..., 0]}
        if stimulus:
            block = weights[..., 1 : 1 + stimulus]
            found["stimulus_weight"] = block.reshape(*batch, neurons, self.model.stimuli, own.stimulus.shape[1])
        pairs = weights[..., 1 + stimulus :][..., :coupling].reshape(*batch, neurons, -1, own.coupling.shape[1] or 1)
        last = weights[..., 1 + stimulus + coupling :]
        if own.history.shape[1]:
            grid = pairs if own.shared else last.reshape(*batch, neurons, neurons, own.history.shape[1])
            found["history_weight"] = grid.diagonal(dim1=-3, dim2=-2).mT
        if coupling and neurons > 1:
            other = torch.tensor([[m for m in range(neurons) if m != n] for n in range(neurons)])
            place = other.to(weights.device)[..., None].expand(*batch, neurons, neurons - 1, own.coupling.shape[1])
            found["coupling_weight"] = pairs.gather(-2, place)
        return found

    def weights(self, theta: Theta) -> Tensor:
        """Return the weights (..., N, P) of the sites' values."""
        neurons, (_, coupling, history) = self.model.neurons, self.sizes
        parts = [theta["baseline"][..., None]]
        parts += [theta["stimulus_weight"].flatten(-2)] if "stimulus_weight" in theta else []
        own = theta.get("history_weight")
        diagonal = None if own is None else torch.eye(neurons).to(own)[..., None] * own[..., :, None, :]
        if coupling:
            grid = square(theta["coupling_weight"]) if neurons > 1 else 0.0
            parts += [(grid + diagonal if self.own.shared else grid).flatten(-2)]  # type: ignore[union-attr]
        parts += [diagonal.flatten(-2)] if history and diagonal is not None else []
        return torch.cat(parts, -1)

    def _precision(self, basis: Tensor, kind: str) -> Tensor:
        functions = basis.shape[1]
        if kind == "smooth" and functions:
            return torch.cholesky_inverse(smooth_factor(basis.double(), self.model.scale))
        return torch.eye(functions, dtype=torch.float64) / self.model.scale**2


def _fill(precision: Tensor, rows: object, at: int, block: Tensor) -> int:
    size = len(block)
    precision[rows, at : at + size, at : at + size] = block  # type: ignore[index]
    return at + size
