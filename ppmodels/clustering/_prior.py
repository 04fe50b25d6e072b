"""A Gaussian mixture's prior, as tensors, from the fields of the model."""

from typing import Any

import torch
from torch import Tensor

from ppmodels.clustering._covariance import gamma_prior


def prior_of(model: Any) -> tuple[Tensor, ...]:
    """Return concentration (K,), mean (K, D) and sd (D,) of loc, shape and rate of precision (D,) or ()."""
    center, scale = (torch.tensor(field).expand(model.dim) for field in (model.center, model.scale))
    gamma = gamma_prior(model.covariance, scale, model.strength, model.width)
    concentration = torch.full((model.components,), model.concentration)
    return concentration, center.expand(model.components, -1), model.spread * scale, *gamma
