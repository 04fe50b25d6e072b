"""A simulated coupled population in 10 ms bins, with a window of a second on five log cosines."""

import math

import torch
from torch import Tensor

from ppmodels.base import Data, Theta
from ppmodels.population.glm import CoupledGLM
from ppmodels.population.rollouts import rollout

ROWS = 100


def population(neurons: int, bins: int, window: float = 1.0, seed: int = 0) -> tuple[CoupledGLM, Tensor]:
    """Return the model, its priors so wide that its mode is the MLE, and counts (T, N), float32."""
    filters = (5, window)
    fields = {"stimulus": (0, 0.0), "history": filters, "coupling": filters, "lags": False}
    model = CoupledGLM(neurons, 0, 0.01, scale=100.0, spread=100.0, rate=5.0, **fields)
    generator = torch.Generator().manual_seed(seed)
    some = torch.rand(neurons, neurons - 1, 1, generator=generator) < 3 / neurons
    theta: Theta = {
        "baseline": torch.full((neurons,), math.log(5.0)),
        "history_weight": torch.tensor([-0.5, -0.2, -0.1, -0.05, 0.0]).expand(neurons, 5),
        "coupling_weight": some * 0.03 * torch.randn(neurons, neurons - 1, 5, generator=generator),
    }
    given = {
        "stimulus": torch.zeros(ROWS, bins // ROWS, 0),
        "past": torch.zeros(ROWS, model.windows(torch.empty(0)).past, neurons),
        "seen": torch.ones(ROWS, bins // ROWS, neurons),
    }
    counts = rollout(model, theta, Data(ROWS, given), seed=seed)
    return model, counts.reshape(-1, neurons)
