"""Deterministic variational inference: the best independent normals for draws that stay the same, by L-BFGS."""

import torch
from torch import Tensor

from inference.density import Density
from inference.density.executor import Batched
from inference.optimum.lbfgs import Ascent, maximise
from inference.svi.guides import MeanField


def climb(batched: Batched, noise: Tensor, loc: Tensor, *, num_steps: int, tol: float) -> Ascent:
    r"""Return where L-BFGS ends on the bound of these draws, from means loc (R, dim): phi, (R, 2 dim).

    .. math:: \frac{1}{P} \sum_p \log p(\mu + e^s \epsilon_p) + \sum_d s_d + \mathrm{const}

    noise: epsilon, (R, P, dim).
    Source: Kucukelbir et al. (2017), J. Machine Learning Research 18; Giordano, Ingram and Broderick (2024), Black box
    variational inference with a deterministic objective, J. Machine Learning Research 25, equation 3.
    """
    guide = MeanField(loc.shape[-1])

    def bound(phi: Tensor) -> tuple[Tensor, Tensor]:
        x, log_q = guide.draw(phi, noise)
        log_p, grad = batched(x.flatten(0, 1))
        scaled = phi[:, guide.dim :].exp()[:, None] * grad.reshape(x.shape)
        to_loc, to_log_scale = grad.reshape(x.shape).mean(1), (scaled * noise).mean(1) + 1.0
        return (log_p.reshape(log_q.shape) - log_q).mean(1), torch.cat([to_loc, to_log_scale], -1)

    return maximise(bound, guide.start(loc, torch.full_like(loc, -2.0)), num_steps=num_steps, tol=tol)


def even(noise: Tensor) -> Tensor:
    """Return draws, (P, dim), with mean 0 and variance 1, and where they are many enough, without correlation.

    On a normal posterior of independent coordinates the fixed draws then cost nothing at all.
    """
    noise = noise - noise.mean(0)
    if len(noise) > 2 * noise.shape[1]:
        root = torch.linalg.cholesky(noise.mT @ noise / len(noise))
        return torch.linalg.solve_triangular(root, noise.mT, upper=False).mT
    return noise / noise.square().mean(0).sqrt()


def linear_response(density: Density, phi: Tensor, noise: Tensor) -> Tensor:
    r"""Return the covariance of the posterior, (dim, dim), by how the optimum moves where the density is tilted.

    .. math:: \mathrm{Cov} = \frac{d \mu^*}{d t}\Big|_{\log p + t^\top x} = [-H^{-1}]_{\mu\mu}

    with H the bound's second derivative at its top phi, (2 dim,), for these draws, (P, dim). What independent normals
    say of a variance is too little; this is right where the means are.
    Source: Giordano, Broderick and Jordan (2018), J. Machine Learning Research 19, theorem 1.
    """
    dim = density.dim
    loc, scale = phi[:dim], phi[dim:].exp()
    total = phi.new_zeros(2 * dim, 2 * dim)
    for eps in noise:
        x, reach = loc + scale * eps, scale * eps  # (dim,)
        inner, slope = density.hessian(x).detach(), density.value_and_grad(x)[1]
        across = inner * reach
        own = across * reach[:, None] + (slope * reach).diag()
        total += torch.cat([torch.cat([inner, across], 1), torch.cat([across.mT, own], 1)]) / len(noise)
    return torch.linalg.inv(-total)[:dim, :dim]
