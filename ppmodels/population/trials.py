"""Trials side by side: one array (trial, time, neuron), NaN behind the end of the shorter ones."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ppmodels.population.binning import Counts


def stack(trials: Any, bin_size: float = 1.0, neurons: Sequence[Any] = ()) -> tuple[Tensor, dict[str, list[Any]]]:
    """Return y (R, T, N), and the labels of its axes: numbers of trials, seconds from a trial's start, neurons.

    trials: `Counts` of `bin_spikes`, whose bins and names are taken; or trials (T_k, N), counts or other values.
    T is the longest one's; a model takes the NaN behind the others with gaps=True, as `for_data` does.

    Raises: ValueError when trials differ in their neurons, naming the first one that does.
    """
    if isinstance(trials, Counts):
        trials, bin_size, neurons = trials.trials, trials.bin_size, trials.neurons
    each = [torch.as_tensor(trial) for trial in trials]
    each = [trial if trial.is_floating_point() else trial.double() for trial in each]
    if not each:
        raise ValueError("there are no trials")
    for k, trial in enumerate(each):
        if trial.ndim != 2 or trial.shape[1] != each[0].shape[1]:
            raise ValueError(f"trial {k} must be (bins, {each[0].shape[-1]} neurons); it is {tuple(trial.shape)}")
    names = list(neurons) or list(range(each[0].shape[1]))
    if len(names) != each[0].shape[1]:
        raise ValueError(f"{len(names)} names for {each[0].shape[1]} neurons")
    y = torch.nn.utils.rnn.pad_sequence(each, batch_first=True, padding_value=float("nan"))
    time = [round(i * bin_size, 9) for i in range(y.shape[1])]
    return y, {"trial": list(range(len(each))), "time": time, "neuron": names}
