"""The four covariance families, by a lower triangular W that whitens: W'W is the precision.

The diagonal of W is the root of `precision`: of each column given those before it. What lies below the
diagonal is `off_diagonal`, row by row. `diagonal` and `spherical` have none; `tied` has one W for all.
"""

from contextlib import nullcontext
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppmodels.base import Theta, dims

Family = Literal["full", "tied", "diagonal", "spherical"]

WIDEST = 12  # columns up to which W is put together by a product
SMALLEST = 1e-10  # a component's variance, as a share of the column's, below which it has collapsed


def gamma_prior(family: Family, scale: Tensor, strength: float, width: float) -> tuple[Tensor, Tensor]:
    """Return shape and rate of precision's Gamma, (D,), or () when spherical.

    With off_diagonal[j, i] ~ Normal(0, (2 rate_i)^-1/2) this is Bartlett's decomposition of a Wishart prior:
    covariance ~ inverse Wishart with strength + D - 1 degrees of freedom and scale matrix diag(2 rate).
    """
    rate = strength * (width * scale).square() / 2  # (D,)
    if family == "spherical":
        return torch.full_like(rate[0], strength / 2), rate.mean()
    steps = torch.arange(len(scale)).to(scale) if family in ("full", "tied") else torch.zeros_like(scale)
    return (strength + steps) / 2, rate


def sample(family: Family, size: torch.Size, shape: Tensor, rate: Tensor) -> Tensor:
    """Sample the family's sites, and compute covariance; return W, (K, D, D), or its diagonal, (K, D)."""
    components, dim = size
    plate = pyro.plate("components", components, dim=-1)
    triangular, theta = family in ("full", "tied"), {}
    with nullcontext() if family == "tied" else plate:
        gamma: Any = dist.Gamma(shape, rate).to_event(shape.ndim)
        theta["precision"] = pyro.sample("precision", gamma, infer=dims(*["feature"] * shape.ndim))
        if triangular and dim > 1:
            _, column = torch.tril_indices(dim, dim, -1, device=rate.device)
            normal = dist.Normal(torch.zeros_like(rate)[column], (2 * rate[column]).rsqrt()).to_event(1)
            theta["off_diagonal"] = pyro.sample("off_diagonal", normal, infer=dims("pair"))
    factor = whitening(theta, family, dim)
    if family == "tied":
        factor = torch.cat([factor] * components)  # not expanded: views of it must stay possible in a batch
    with plate:
        value = covariance(factor, triangular)
        named: Any = {"_deterministic": True, **dims("feature", "feature_bis")}  # pyro.deterministic names no axes
        pyro.sample("covariance", dist.Delta(value, event_dim=2).mask(False), obs=value, infer=named)
    return factor


def whitening(theta: Theta, family: Family, dim: int) -> Tensor:
    """Return W, (..., K, D, D), or its diagonal, (..., K, D); K is 1 when tied."""
    root = theta["precision"].sqrt()
    if family == "spherical":
        return root[..., None].expand(*root.shape, dim)
    if family == "tied":
        root = root[..., None, :]
    if family == "diagonal":
        return root
    triangular = root.diag_embed()  # (..., K, D, D)
    if dim == 1:
        return triangular
    below = theta["off_diagonal"][..., None, :] if family == "tied" else theta["off_diagonal"]
    rows, columns = torch.tril_indices(dim, dim, -1, device=root.device)
    place = rows * dim + columns  # (P,)
    if dim > WIDEST:
        flat = root.new_zeros(*below.shape[:-1], dim * dim).index_copy(-1, place, below)
        return triangular + flat.unflatten(-1, (dim, dim))
    # A product with ones and zeros: the gradient of an index is a slow scatter.
    places = torch.eye(dim * dim, dtype=root.dtype, device=root.device)[place]
    return triangular + (below @ places).unflatten(-1, (dim, dim))


def parameters(theta: Theta, family: Family) -> tuple[Tensor, Tensor, Tensor]:
    """Return log weights (K,), loc (K, D), and W, (K, D, D) or (1, D, D), or its diagonal, (K, D)."""
    return theta["weights"].log(), theta["loc"], whitening(theta, family, theta["loc"].shape[-1])


def covariance(factor: Tensor, triangular: bool) -> Tensor:
    """Return (W'W)^-1, (..., D, D), of W or of its diagonal."""
    if not triangular:
        return factor.square().reciprocal().diag_embed()
    eye = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    root = torch.linalg.solve_triangular(factor, eye, upper=False)
    return root @ root.mT


def best(family: Family, count: Tensor, scatter: Tensor, shape: Tensor, rate: Tensor) -> tuple[Theta, Tensor]:
    r"""Return the sites that maximise the expected log joint given the means, and each pivot, (K, D).

    .. math:: \sum_k N_k \log |W_k| - \tfrac12 \mathrm{tr}\, W_k S_k W_k^\top + \log p(W)

    solved by W = diag(c)^{1/2} C^{-1} with C C' = S + diag(2 rate) and c = N + 2 (shape - 1): set the
    derivative by each row of W to zero. Shape 1 and rate 0 are no prior. A pivot is the squared diagonal
    of C: what a component's scatter leaves in a column that those before it do not explain.
    count (K,), scatter (K, D, D), or (K, D) for diagonal and spherical.
    """
    dim = scatter.shape[-1]
    if family == "tied":
        count, scatter = count.sum(), scatter.sum(0)
    if family == "spherical":
        pivot = scatter.sum(-1) + 2 * rate  # (K,)
        return {"precision": (count * dim + 2 * (shape - 1)) / pivot}, (pivot / dim)[:, None]
    rows = count[..., None] + 2 * (shape - 1)  # (K, D)
    if family == "diagonal":
        pivot = scatter + 2 * rate
        return {"precision": rows / pivot}, pivot
    root, failed = torch.linalg.cholesky_ex(scatter + (2 * rate).diag_embed())  # (K, D, D), (K,)
    eye = torch.eye(dim, dtype=root.dtype, device=root.device)
    pivot = root.diagonal(dim1=-2, dim2=-1).square() * (failed == 0)[..., None]  # (K, D)
    sites = {"precision": rows / pivot}
    if dim > 1:
        factor = rows.sqrt()[..., None] * torch.linalg.solve_triangular(root, eye, upper=False)
        i, j = torch.tril_indices(dim, dim, -1, device=root.device)
        sites["off_diagonal"] = factor[..., i, j]
    return sites, pivot.reshape(-1, dim)
