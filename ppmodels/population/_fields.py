"""What a coupled model's fields mean: checked, and turned into data and into the law of the counts."""

import logging
import math
from typing import Any, get_args

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppmodels.base import Data, Theta, dims
from ppmodels.population._priors import CouplingPrior, FilterPrior
from ppmodels.population._self_driven import Filters, PopulationCounts, square
from ppmodels.population._windows import Windows, check_window
from ppmodels.population.binning import Counts
from ppmodels.population.lagging import lagged

BLOCK = 1000  # bins of a row, unless said: what cross-validation leaves out together
log = logging.getLogger("ppmodels")


def check(model: Any) -> None:
    """Refuse fields that cannot be, in one line that names the field."""
    if model.neurons < 1 or model.stimuli < 0:
        raise ValueError(f"there must be a neuron, and no negative number of stimuli; {model.neurons}, {model.stimuli}")
    for name in ("scale", "spread", "ceiling", "rate", "bin_size"):
        if not 0 < getattr(model, name) < math.inf:
            raise ValueError(f"{name} must be positive and finite; it is {getattr(model, name)}")
    for name, kinds in (("filters", FilterPrior), ("couplings", CouplingPrior)):
        if getattr(model, name) not in get_args(kinds):
            raise ValueError(f"{name} must be one of {', '.join(get_args(kinds))}; it is {getattr(model, name)!r}")
    for name in ("stimulus", "history", "coupling"):
        check_window(name, getattr(model, name), model.basis, model.bin_size)
    if model.observation == "bernoulli" and model.link == "sigmoid" and model.rate * model.bin_size >= 1:
        raise ValueError(f"rate {model.rate:g} Hz is a spike a bin or more; take a lower rate or shorter bins")
    _ = model.law


def population(model: Any, theta: Theta, data: Data) -> PopulationCounts:
    """The law of the counts at these weights: (R,) trials of (T, N)."""
    stimulus, own = data.given["stimulus"], model.windows(data.given["stimulus"])
    neurons = model.neurons
    drive = theta["baseline"].expand(stimulus.shape[0], stimulus.shape[1] - own.lead, neurons)  # (R, T, N)
    if "stimulus_weight" in theta:
        features = lagged(stimulus, own.stimulus).flatten(-2)  # (R, T, D A)
        drive = drive + features @ theta["stimulus_weight"].flatten(-2).mT
    nothing = stimulus.new_zeros(neurons, 0)
    history = theta.get("history_weight", nothing)  # (N, H)
    coupling = theta.get("coupling_weight", nothing[:, None].expand(neurons, neurons - 1, 0))
    filters = Filters(history, coupling, own.history, own.coupling)
    ceiling = model.ceiling * model.bin_size
    given = data.given
    return PopulationCounts(model.law, drive, given["past"], given["seen"], filters, theta.get("dispersion"), ceiling)


def filters(theta: Theta, own: Windows) -> Theta:
    """Return the filters lag by lag of weights (..., N, ...), by the names that draws have."""
    found = {}
    if "stimulus_weight" in theta:
        found["stimulus_filter"] = theta["stimulus_weight"] @ own.stimulus.mT  # (..., N, D, B)
    if "history_weight" in theta:
        found["history_filter"] = theta["history_weight"] @ own.history.mT  # (..., N, L)
    if "coupling_weight" in theta:
        found["coupling_filter"] = square(theta["coupling_weight"]) @ own.coupling.mT  # (..., N, N, L)
    return found


def keep_filters(theta: Theta, own: Windows) -> None:
    """Make the filters computed sites with named axes, which `pyro.deterministic` would not name."""
    axes = {
        "stimulus_filter": ("post", "stimulus", "stimulus_lag"),
        "history_filter": ("post", "lag"),
        "coupling_filter": ("post", "pre", "lag"),
    }
    for name, value in filters(theta, own).items():
        named: Any = {"_deterministic": True, **dims(*axes[name])}
        pyro.sample(name, dist.Delta(value, event_dim=value.ndim).mask(False), obs=value, infer=named)


def data(model: Any, counts: Any, stimulus: Any = None, *, block: int | None = None, warm_up: bool = True) -> Data:
    """Return a recording as the model's data: every row a trial, or a block of a long one, with the bins before it.

    counts: a `Counts`, or an array (time, neuron), or (trial, time, neuron), or a sequence of trials.
    stimulus: in the same bins, (time, stimulus) for each trial; with one stimulus (time,) will do.
    block: bins of a row; by default a trial, and blocks of a thousand bins where a trial is longer than twice that.
    warm_up: the first bins of a trial, as many as the longest window, are only looked back at; False scores them
        too, as if there had been no spike before, and a stimulus of zero.

    Raises: ValueError naming neuron, trial and bin of a count or stimulus that cannot be.
    """
    given = counts if isinstance(counts, Counts) else Counts.of(counts, model.bin_size)
    _check_counts(model, given)
    like = given.trials[0]
    stimuli = _stimuli(model, given, stimulus)
    own = model.windows(like)
    first = max(own.past, own.lead)
    rows: dict[str, list[Tensor]] = {"stimulus": [], "past": [], "seen": [], "counts": []}
    length = block or _length(given, first if warm_up else 0)
    for trial, signal in zip(given.trials, stimuli, strict=True):
        front = 0 if warm_up else first
        trial, signal = (torch.cat([x.new_zeros(front, x.shape[1]), x]) for x in (trial, signal))
        for start in range(first, len(trial), length):
            stop = min(start + length, len(trial))
            rows["past"].append(trial[start - own.past : start])
            rows["stimulus"].append(_padded(signal[start - own.lead : stop], length + own.lead))
            rows["counts"].append(_padded(trial[start:stop], length))
            rows["seen"].append(_padded(torch.ones(stop - start, len(given.neurons), dtype=torch.bool), length))
    if not rows["counts"]:
        raise ValueError(f"no trial is longer than the window of {first} bins, which is only looked back at")
    values: dict[str, Any] = {name: torch.stack(parts) for name, parts in rows.items()}
    return Data.of(model, _labels(model, given, own, length), **values)


def _length(counts: Counts, first: int) -> int:
    longest = max(len(trial) for trial in counts.trials) - first
    return max(1, longest if longest <= 2 * BLOCK else BLOCK)


def _padded(x: Tensor, length: int) -> Tensor:
    return torch.cat([x, x.new_zeros(length - len(x), x.shape[1])]) if len(x) < length else x


def _check_counts(model: Any, counts: Counts) -> None:
    if len(counts.neurons) != model.neurons:
        raise ValueError(f"the model has {model.neurons} neurons, the counts {len(counts.neurons)}")
    if not math.isclose(counts.bin_size, model.bin_size, rel_tol=1e-6):
        raise ValueError(f"the model's bins are {model.bin_size:g} s, those of the counts {counts.bin_size:g} s")
    if model.observation == "bernoulli":
        for k, trial in enumerate(counts.trials):
            wrong = (trial > 1).nonzero()
            if len(wrong):
                t, n = wrong[0].tolist()
                said = f"neuron {counts.neurons[n]}, bin {t} of trial {k}: {int(trial[t, n])} spikes"
                raise ValueError(f"{said}; a Bernoulli bin holds one at most: take shorter bins or Poisson counts")


def _stimuli(model: Any, counts: Counts, stimulus: Any) -> list[Tensor]:
    """The stimulus of each trial, (T_k, D)."""
    like = counts.trials[0]
    if stimulus is None:
        if model.stimuli:
            raise ValueError(f"the model has {model.stimuli} stimuli, and none is given; make it with stimuli=0")
        return [like.new_zeros(len(trial), 0) for trial in counts.trials]
    alone = len(counts.trials) == 1 and isinstance(stimulus, Tensor | np.ndarray) and len(stimulus) == len(like)
    every: Any = [stimulus] if alone else stimulus
    found = [torch.as_tensor(one).to(like) for one in every]
    found = [one[:, None] if one.ndim == 1 else one for one in found]
    wanted = [(len(trial), model.stimuli) for trial in counts.trials]
    if [tuple(one.shape) for one in found] != wanted:
        k = next((k for k, (x, w) in enumerate(zip(found, wanted, strict=False)) if tuple(x.shape) != w), 0)
        got = tuple(found[k].shape) if k < len(found) else "nothing"
        raise ValueError(f"the stimulus of trial {k} is (time, stimulus) = {wanted[k]}; got {got}, {len(found)} trials")
    for k, one in enumerate(found):
        wrong = (~one.isfinite()).nonzero()
        if len(wrong):
            t, d = wrong[0].tolist()
            said = f"stimulus {d} in bin {t} of trial {k} is {float(one[t, d])}"
            raise ValueError(f"{said}; fill it, or cut the trial there: lags never cross trials")
    return found


def _labels(model: Any, counts: Counts, own: Any, length: int) -> dict[str, Any]:
    """Names of neurons, and lags and bins in seconds."""
    bins = [round(i * model.bin_size, 9) for i in range(max(own.past, own.lead, length) + 1)]
    labels = {"neuron": counts.neurons, "post": counts.neurons, "pre": counts.neurons}
    return labels | {"lag": bins[1 : own.past + 1], "stimulus_lag": bins[: own.lead + 1], "time": bins[:length]}
