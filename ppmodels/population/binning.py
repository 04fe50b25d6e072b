"""Spike times to counts in bins: every spike in exactly one bin, every epoch by itself."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppmodels.population.loading import epochs_of, spike_times

log = logging.getLogger("ppmodels")

ROUNDING = 1e-7  # of a bin: what a time may lie below an edge and still count as on it


@dataclass(frozen=True)
class Counts:
    """Spike counts of a population, an epoch or trial an entry: lags never cross from one to the next.

    trials: counts, each (T_k, N), float64. bin_size: in seconds. starts: of each trial, in seconds.
    neurons: their names. outside: spikes of each neuron that lie in no bin.
    """

    trials: tuple[Tensor, ...]
    bin_size: float
    starts: tuple[float, ...]
    neurons: tuple[str, ...]
    outside: tuple[int, ...] = ()

    @classmethod
    def of(cls, counts: Any, bin_size: float, neurons: Sequence[Any] = ()) -> "Counts":
        """Return counts that are already binned: (time, neuron), a sequence of such trials, or (trial, time, neuron).

        Raises: ValueError naming trial, bin and neuron where a count is negative, broken, or no number.
        """
        array = isinstance(counts, Tensor | np.ndarray)
        trials = [torch.as_tensor(one) for one in ([counts] if array and counts.ndim == 2 else counts)]
        trials = [one.to(one.dtype if one.is_floating_point() else torch.float64) for one in trials]
        widths = {tuple(one.shape[1:]) for one in trials}
        if len(widths) != 1 or any(one.ndim != 2 for one in trials):
            raise ValueError(f"counts are (time, neuron) a trial; got {[tuple(one.shape) for one in trials][:4]}")
        names = tuple(str(name) for name in neurons) or tuple(str(n) for n in range(trials[0].shape[1]))
        if len(names) != trials[0].shape[1]:
            raise ValueError(f"{len(names)} names for {trials[0].shape[1]} neurons")
        for k, trial in enumerate(trials):
            _check(trial, k, names)
        made = cls(tuple(trials), float(bin_size), (0.0,) * len(trials), names)
        made._say_what_is_silent()
        return made

    @property
    def totals(self) -> Tensor:
        """Spikes of each neuron, (N,)."""
        return torch.stack([trial.sum(0) for trial in self.trials]).sum(0)

    @property
    def bins(self) -> int:
        """Bins of all trials together."""
        return sum(len(trial) for trial in self.trials)

    def select(self, trials: Sequence[int]) -> "Counts":
        """Return some of the trials, in this order."""
        pick = [int(k) for k in trials]
        some = tuple(self.trials[k] for k in pick)
        return Counts(some, self.bin_size, tuple(self.starts[k] for k in pick), self.neurons)

    def _say_what_is_silent(self) -> None:
        silent = [self.neurons[n] for n in (self.totals == 0).nonzero()[:, 0].tolist()]
        if silent:
            log.warning(
                "neuron %s has no spikes in %d bins; its prior alone tells its rate", ", ".join(silent), self.bins
            )
        dead = [k for k, trial in enumerate(self.trials) if len(trial) and not bool(trial.any())]
        if dead and len(dead) < len(self.trials):
            log.warning(
                "no neuron spikes in trial %s; leave it out if the recording was off", ", ".join(map(str, dead))
            )


def bin_spikes(spikes: Any, bin_size: float, epochs: Any = None, neurons: Sequence[Any] | None = None) -> Counts:
    """Count spikes in bins of each epoch; the bins are whole ones, so an epoch may end before its last.

    spikes: times in seconds by neuron: a mapping, a sequence of arrays, a pynapple `TsGroup`, an NWB file or its
        units table.
    epochs: (start, end) pairs in seconds, or a pynapple `IntervalSet`; by default one, from 0 past the last spike.
    neurons: the ones to count, by name; by default all.

    Returns: counts that sum to the number of spikes inside the bins, to the last one.
    Raises: ValueError naming the neuron and the spike where times are not finite or not sorted, or the epoch where
        epochs overlap or have no bin.
    """
    if not bin_size > 0:
        raise ValueError(f"bin_size must be positive, in seconds; it is {bin_size}")
    times = _chosen(spike_times(spikes), neurons)
    for name, one in times.items():
        _check_times(one, name)
    spans = epochs_of(epochs) if epochs is not None else [(0.0, _end(times, bin_size))]
    _check_epochs(spans, bin_size)
    trials, inside = [], np.zeros(len(times), dtype=int)
    for start, end in spans:
        bins = int((end - start) / bin_size + ROUNDING)
        columns = [_count(one, start, bin_size, bins) for one in times.values()]
        trials.append(torch.as_tensor(np.stack(columns, 1) if columns else np.zeros((bins, 0))))  # (T_k, N)
        inside += trials[-1].sum(0).numpy().astype(int)
    outside = tuple(int(len(one) - n) for one, n in zip(times.values(), inside, strict=True))
    made = Counts(tuple(trials), float(bin_size), tuple(start for start, _ in spans), tuple(times), outside)
    made._say_what_is_silent()
    return made


def _chosen(times: Mapping[str, np.ndarray], neurons: Sequence[Any] | None) -> dict[str, np.ndarray]:
    if neurons is None:
        return dict(times)
    missing = [str(name) for name in neurons if str(name) not in times]
    if missing:
        raise ValueError(f"there is no neuron {missing[0]!r}; there are: {', '.join(list(times)[:20])}")
    return {str(name): times[str(name)] for name in neurons}


def _count(times: np.ndarray, start: float, bin_size: float, bins: int) -> np.ndarray:
    """Counts (bins,) of float64; a time within rounding of an edge belongs to the bin that begins there."""
    first, last = np.searchsorted(times, [start - bin_size, start + (bins + 1) * bin_size])
    place = np.floor((times[first:last] - start) / bin_size + ROUNDING).astype(int)
    return np.bincount(place[(place >= 0) & (place < bins)], minlength=bins).astype(float)


def _end(times: Mapping[str, np.ndarray], bin_size: float) -> float:
    last = max((one[-1] for one in times.values() if len(one)), default=0.0)
    return bin_size * (np.floor(last / bin_size + ROUNDING) + 1)


def _check_times(times: np.ndarray, name: str) -> None:
    wrong = np.flatnonzero(~np.isfinite(times))
    if len(wrong):
        raise ValueError(f"neuron {name}: spike {wrong[0]} has the time {times[wrong[0]]}; drop it")
    back = np.flatnonzero(np.diff(times) < 0)
    if len(back):
        i = int(back[0])
        said = f"spike {i + 1} at {times[i + 1]:g} s comes after one at {times[i]:g} s"
        raise ValueError(f"neuron {name}: spike times are not sorted: {said}; sort them")


def _check_epochs(spans: Sequence[tuple[float, float]], bin_size: float) -> None:
    for k, (start, end) in enumerate(spans):
        if not (np.isfinite(start) and np.isfinite(end)) or (end - start) / bin_size + ROUNDING < 1:
            raise ValueError(f"epoch {k}, from {start:g} to {end:g} s, has no bin of {bin_size:g} s")
    order = sorted(range(len(spans)), key=lambda k: spans[k])
    for a, b in pairwise(order):
        if spans[b][0] < spans[a][1] - ROUNDING * bin_size:
            raise ValueError(
                f"epochs {a} and {b} overlap: one ends at {spans[a][1]:g} s, one starts at {spans[b][0]:g} s"
            )


def _check(trial: Tensor, k: int, names: Sequence[str]) -> None:
    for wrong, said in (
        (~trial.isfinite(), "no number"),
        (trial < 0, "negative"),
        (trial != trial.round(), "no whole number"),
    ):
        if bool(wrong.any()):
            t, n = wrong.nonzero()[0].tolist()
            raise ValueError(f"neuron {names[n]}, bin {t} of trial {k}: the count {float(trial[t, n]):g} is {said}")
