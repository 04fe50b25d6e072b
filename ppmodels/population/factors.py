"""Latents of a linear readout in the order that it gives them, and how well they predict a neuron left out."""

from typing import Any

import torch
from torch import Tensor

from ppmodels.base import Data, Theta


def orthonormalised(loading: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Return orthonormal loadings (N, P) and the latents (R, T, P) that go with them, by falling shared variance.

    loading (N, P), mean (R, T, P): C x = U (D V' x) with C = U D V'; what the readout says is unchanged.

    Source: Yu et al. (2009), J. Neurophysiology 102, section "Visualization of trajectories".
    """
    basis, size, turn = torch.linalg.svd(loading, full_matrices=False)
    sign = torch.where(basis.pow(3).sum(0) < 0, -1.0, 1.0)
    return basis * sign, mean @ (turn.mT * size) * sign


def leave_neuron_out(model: Any, theta: Theta, data: Data) -> Tensor:
    """Return each neuron's expected values, (R, T, N), from the latents that all the others tell.

    model: any with a path behind a linear readout: `path`, `loading`, `offset`, and gaps=True.

    Raises: ValueError when the model does not take gaps.
    Source: Yu et al. (2009), J. Neurophysiology 102, equation 7.
    """
    if not model.gaps:
        raise ValueError("a neuron is left out as a gap; make the model with gaps=True")
    y, predicted = data.observed["y"], []
    for neuron in range(y.shape[-1]):
        others = y.clone()
        others[..., neuron] = torch.nan
        mean = model.path(theta, Data(data.rows, data.given, {"y": others}, data.index)).mean
        predicted.append(mean @ theta["loading"][neuron] + theta["offset"][neuron])
    return torch.stack(predicted, -1)
