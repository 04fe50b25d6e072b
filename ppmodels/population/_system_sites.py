"""A linear system as sites of a program: one of its many forms, with a prior that knows nothing of which.

The prior is that of loadings and paths in any rotation, seen in the form where C is lower triangular: the squared
diagonal of the triangle of a Gaussian matrix has chi-squared laws of falling degrees (Bartlett). So what
the posterior says of anything but the coordinates does not depend on the order of the neurons.
"""

from typing import Any, Protocol

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import Distribution
from torch import Tensor
from torch.distributions.transforms import PowerTransform

from ppmodels.base import Theta, dims
from ppmodels.population._checks import check_choice
from ppmodels.population._positive import cholesky
from ppmodels.population.linear_system import LinearSystem

EVENT_DIMS = {
    "dynamics": ("latent", "latent_before"),
    "initial_loc": ("latent",),
    "initial_scale": ("latent",),
    "initial_below": ("latent_pair",),
    "loading_diagonal": ("latent",),
    "loading_below": ("loading_entry",),
    "offset": ("neuron",),
    "noise": ("neuron",),
}
LEAST = 1e-8  # of a diagonal, which is positive


class HasSystem(Protocol):
    """The fields of a model that tell its linear system's prior."""

    @property
    def neurons(self) -> int: ...
    @property
    def latents(self) -> int: ...
    @property
    def initial(self) -> str: ...
    @property
    def center(self) -> tuple[float, ...]: ...
    @property
    def scale(self) -> tuple[float, ...]: ...


def system_priors(model: HasSystem) -> dict[str, Any]:
    """Return the priors of the sites that both state spaces have, by name."""
    p, n = model.latents, model.neurons
    center, scale = (torch.tensor(field).expand(n) for field in (model.center, model.scale))
    row, _ = torch.tril_indices(n, p, -1)
    priors: dict[str, Any] = {"dynamics": dist.Normal(0.7 * torch.eye(p), 0.2)}
    priors["initial_loc"] = dist.Normal(torch.zeros(p), 2.0)
    if model.initial == "free":  # V_0 ~ Wishart(P + 2, I / (P + 2))
        priors["initial_scale"] = _chi(p + 2.0 - torch.arange(p), torch.tensor((p + 2.0) ** -0.5))
        if p > 1:
            priors["initial_below"] = dist.Normal(torch.zeros(p * (p - 1) // 2), (p + 2.0) ** -0.5)
    priors["loading_diagonal"] = _chi(p - torch.arange(p).to(scale), 0.5 * scale[:p])
    if len(row):
        priors["loading_below"] = dist.Normal(torch.zeros(len(row)), 0.5 * scale[row])
    priors["offset"] = dist.Normal(center, 2.0 * scale)
    return {name: prior.to_event(len(prior.batch_shape)) for name, prior in priors.items()}


def sample_system(model: HasSystem, priors: dict[str, Any]) -> LinearSystem:
    """Sample every site, and compute the loading."""
    sites = {name: pyro.sample(name, prior, infer=dims(*EVENT_DIMS[name])) for name, prior in priors.items()}
    system = system_of(model, sites)
    pyro.deterministic("loading", system.loading, event_dim=2)
    return system


def system_of(model: HasSystem, theta: Theta) -> LinearSystem:
    """Return the system that the sites' values tell."""
    loading = _tril(theta["loading_diagonal"], theta.get("loading_below"), model.neurons)
    eye = torch.eye(model.latents, dtype=loading.dtype, device=loading.device)
    root = _tril(theta["initial_scale"], theta.get("initial_below"), model.latents) if "initial_scale" in theta else eye
    noise = theta["noise"].square() if "noise" in theta else None
    return LinearSystem(theta["dynamics"], eye, theta["initial_loc"], root @ root.mT, loading, theta["offset"], noise)


def theta_of(model: HasSystem, system: LinearSystem) -> Theta:
    """Return the sites' values of a system, whatever its coordinates."""
    system = system.canonical()
    theta = {"dynamics": system.dynamics, "initial_loc": system.initial_loc}
    if model.initial == "free":
        root = cholesky(system.initial_cov, "canonical form", "V_0")
        theta |= _parts(root, "initial_scale", "initial_below")
    theta |= _parts(system.loading, "loading_diagonal", "loading_below")
    theta["offset"] = system.offset
    if system.noise is not None:
        theta["noise"] = system.noise.sqrt()
    return theta


def check_system(model: HasSystem) -> None:
    """Raise a ValueError of one line when a field of a state space is out of its range."""
    if not 1 <= model.latents <= model.neurons:
        raise ValueError(f"latents must be 1 to neurons, {model.neurons}; it is {model.latents}")
    check_choice(model, "initial", "free", "innovation")
    for name in ("center", "scale"):
        if len(getattr(model, name)) not in (1, model.neurons):
            raise ValueError(f"{name} needs 1 or {model.neurons} numbers; it has {len(getattr(model, name))}")
    if not all(0 < s < float("inf") for s in model.scale):
        raise ValueError(f"scale must be positive and finite; it is {model.scale}")


def _chi(degrees: Tensor, scale: Tensor) -> Distribution:
    """The law of scale times the root of a chi-squared variable."""
    squared = dist.Gamma(degrees / 2, 0.5 / scale.square())
    return dist.TransformedDistribution(squared, [PowerTransform(torch.tensor(0.5))])


def _tril(diagonal: Tensor, below: Tensor | None, rows: int) -> Tensor:
    """The lower triangular matrix (rows, P) of these entries."""
    matrix = torch.diag_embed(diagonal)
    matrix = torch.cat([matrix, matrix.new_zeros(rows - len(diagonal), len(diagonal))])
    if below is None:
        return matrix
    i, j = torch.tril_indices(rows, len(diagonal), -1, device=diagonal.device)
    return matrix.index_put((i, j), below)


def _parts(matrix: Tensor, diagonal: str, below: str) -> Theta:
    rows, columns = matrix.shape
    i, j = torch.tril_indices(rows, columns, -1, device=matrix.device)
    parts = {diagonal: matrix.diagonal().clamp_min(LEAST)}
    return {**parts, below: matrix[i, j]} if len(i) else parts
