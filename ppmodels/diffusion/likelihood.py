"""The exact density of what an ODE makes of noise: change of variables, followed along the path."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ppmodels.diffusion._noise import standard_normal
from ppmodels.diffusion._ode import integrate

Velocity = Callable[[Tensor, Tensor], Tensor]


class LogLikelihood(NamedTuple):
    """Log densities of the rows and how well they are known.

    value: nats, (B,). standard_error: of the random probes, (B,); 0 with the exact divergence.
    latent: where the rows end, (B, ...). evaluations: of the velocity.
    """

    value: Tensor
    standard_error: Tensor
    latent: Tensor
    evaluations: int


def log_likelihood(
    velocity: Velocity,
    x: Tensor,
    prior: Callable[[Tensor], Tensor],
    *,
    start: float,
    end: float,
    num_probes: int | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    generator: torch.Generator | None = None,
) -> LogLikelihood:
    r"""Log density of x under the flow that carries the data at `start` to the prior at `end`.

    .. math:: \log p_0(x_0) = \log p_T(x_T) + \int_0^T \nabla \cdot v(x_t, t)\, dt

    velocity: (x (B, ...), t (B,)) -> (B, ...). prior: log density (B,) of rows at `end`.
    num_probes: None for the exact divergence, one backward pass a dimension; otherwise Hutchinson's estimate
    from that many random signs a row, the same along the path, with its standard error.

    Source: Song et al. (2021), arXiv:2011.13456, equation 39; Grathwohl et al. (2019), arXiv:1810.01367.
    """
    if num_probes is not None and num_probes < 1:
        raise ValueError(f"num_probes must be positive; got {num_probes}")
    count, shape = len(x), x.shape
    if num_probes is None:
        probes = torch.eye(x[0].numel()).to(x)[:, None, :].expand(-1, count, -1)  # (D, B, D)
    else:
        drawn = standard_normal(x.new_empty(num_probes, *shape), generator)
        probes = drawn.sign().flatten(2)  # (M, B, D)

    def field(state: Tensor, t: float) -> Tensor:
        place = state[:, : x[0].numel()].reshape(shape)
        slope, along = _with_derivatives(velocity, place, t, probes)
        return torch.cat([slope.flatten(1), along.T], 1)  # (B, D + M)

    start_state = torch.cat([x.flatten(1), x.new_zeros(count, len(probes))], 1)
    solution = integrate(field, start_state, start, end, rtol=rtol, atol=atol)
    latent, integrals = solution.x[:, : x[0].numel()].reshape(shape), solution.x[:, x[0].numel() :]
    if num_probes is None:
        change, error = integrals.sum(-1), x.new_zeros(count)
    else:
        change = integrals.mean(-1)
        spread = integrals.std(-1) if num_probes > 1 else torch.full_like(change, torch.nan)
        error = spread / num_probes**0.5
    return LogLikelihood(prior(latent) + change, error, latent, solution.evaluations)


def standard_normal_prior(scale: float = 1.0) -> Callable[[Tensor], Tensor]:
    """Log density of independent N(0, scale^2), summed over a row."""
    law = torch.distributions.Normal(0.0, scale)
    return lambda x: law.log_prob(x).flatten(1).sum(-1)


def _with_derivatives(velocity: Velocity, x: Tensor, t: float, probes: Tensor) -> tuple[Tensor, Tensor]:
    """The velocity (B, ...), and e' (dv / dx) e for every probe e (M, B, D), as (M, B)."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        value = velocity(leaf, torch.full((len(x),), t, dtype=x.dtype, device=x.device))
        flat = value.flatten(1)  # (B, D)
        along = []
        for i, probe in enumerate(probes):
            (pulled,) = torch.autograd.grad(flat, leaf, probe, retain_graph=i + 1 < len(probes))
            along.append((pulled.flatten(1) * probe).sum(-1))
    return value.detach(), torch.stack(along)
