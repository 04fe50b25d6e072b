"""Rows against K Gaussians without an (N, K, D) table: densities, moments, and a Pyro distribution."""

import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

CHUNK = 2**18  # elements of the largest temporary of the E and M steps: small enough for a processor's cache

CANCELS = 1e4  # squared sds from the middle above which differences of squares lose digits that matter


def log_density(x: Tensor, loc: Tensor, factor: Tensor) -> Tensor:
    """Return log Normal(x_n; loc_k, (W_k' W_k)^-1), (N, K).

    x (N, D), loc (K, D), factor: W (K, D, D), or (1, D, D) when tied, or its diagonal (K, D).
    """
    origin = x.mean(0)  # far from zero, squares would cancel
    loc, chunk = loc - origin, max(1, CHUNK // loc.numel())
    distance = torch.cat([_squared_distance(rows - origin, loc, factor) for rows in x.split(chunk)])  # (N, K)
    return log_constant(factor) - distance / 2


def moments(q: Tensor, x: Tensor, triangular: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return each component's weight (K,), mean (K, D), and scatter about it (K, D, D) or (K, D), in float64.

    Scatter is summed from centred rows: a difference of raw moments would cancel far from zero.
    """
    count, origin = q.sum(0, dtype=torch.float64), x.mean(0, dtype=torch.float64)
    chunks = list(zip(x.split(_rows(q, x)), q.split(_rows(q, x)), strict=True))
    total = sum(r.double().mT @ (rows.double() - origin) for rows, r in chunks)  # (K, D)
    mean = torch.where(count[:, None] > 0, total / count[:, None], 0.0)
    scatter = 0
    for rows, r in chunks:
        gap = (rows.double() - origin) - mean[:, None]  # (K, n, D)
        if triangular:
            scatter = scatter + (gap * r.double().mT[..., None]).mT @ gap
        else:
            scatter = scatter + (r.double().mT[:, None] @ gap.square())[:, 0]
    return count, mean + origin, torch.as_tensor(scatter)


def log_constant(factor: Tensor) -> Tensor:
    """Return the constant log |W| - D/2 log 2 pi, (K,)."""
    diagonal = factor.diagonal(dim1=-2, dim2=-1) if factor.ndim == 3 else factor
    return diagonal.log().sum(-1) - factor.shape[-1] / 2 * math.log(2 * math.pi)


class ClusterNormal(TorchDistribution):
    """Normal(loc[z], (W[z]' W[z])^-1): scored as features of the row times natural parameters of its cluster.

    That is one matrix product over all rows and clusters, whose left factor depends on the rows alone.
    z: cluster, (N,), or (K, 1) while it is summed out. loc (K, D). factor: W (K, D, D), or its diagonal.
    origin: where the squares are taken from, (D,); any value is right, one near the data loses no digits.
    """

    arg_constraints: Any = {}
    support: Any = constraints.real_vector

    def __init__(self, z: Tensor, loc: Tensor, factor: Tensor, origin: Tensor, shape: Any = None) -> None:
        self.z, self.loc, self.factor, self.origin = z, loc, factor, origin
        super().__init__(torch.Size(z.shape if shape is None else shape), loc.shape[-1:], validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "ClusterNormal":
        return ClusterNormal(self.z, self.loc, self.factor, self.origin, batch_shape)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size((*sample_shape, *self.batch_shape, *self.event_shape))
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        if self.factor.ndim == self.loc.ndim:
            return self.loc[self.z] + noise / self.factor[self.z]
        eye = torch.eye(shape[-1], dtype=noise.dtype, device=noise.device)
        root = torch.linalg.solve_triangular(self.factor, eye, upper=False)  # (K, D, D)
        return self.loc[self.z] + (root[self.z] @ noise[..., None])[..., 0]

    def log_prob(self, value: Tensor) -> Tensor:
        loc, diagonal = self.loc - self.origin, self.factor.ndim == self.loc.ndim
        # One-hot times parameters, not parameters[z]: the gradient of an index is a slow scatter.
        chosen = (self.z[..., None] == torch.arange(len(loc), device=loc.device)).to(loc)  # (N, K) or (K, 1, K)
        features, natural = _features(value - self.origin, diagonal), chosen @ _natural(loc, self.factor)
        for_all_rows = natural.shape[-2] == 1
        score = (natural @ features.mT)[..., 0, :] if for_all_rows else (natural * features).sum(-1)
        return score + chosen @ self._log_normaliser(loc)

    def _log_normaliser(self, loc: Tensor) -> Tensor:
        """Log density at the origin, (K,)."""
        diagonal = self.factor.ndim == loc.ndim
        white = self.factor * loc if diagonal else (self.factor @ loc[..., None])[..., 0]  # (K, D)
        return log_constant(self.factor) - white.square().sum(-1) / 2


def _squared_distance(x: Tensor, loc: Tensor, factor: Tensor) -> Tensor:
    """|W_k (x_n - loc_k)|^2, (n, K)."""
    if factor.ndim == loc.ndim:
        square = factor.square()
        if (square * x.square().amax(0)).max() > CANCELS:
            return ((x[:, None] - loc) * factor).square().sum(-1)
        constant = (square * loc.square()).sum(-1)
        return torch.addmm(constant, x.square(), square.mT) - 2 * x @ (square * loc).mT
    white = (factor @ loc[..., None])[..., 0]  # (K, D)
    if len(factor) == 1 and not white.requires_grad:  # `cdist` has no second derivative, which standard errors take
        return torch.cdist(x @ factor[0].mT, white, compute_mode="donot_use_mm_for_euclid_dist").square()
    stacked = torch.addmm(-white.flatten(), x, factor.expand(len(loc), -1, -1).flatten(0, 1).mT)  # (n, K D)
    return stacked.unflatten(-1, loc.shape).square().sum(-1)


def _features(x: Tensor, diagonal: bool) -> Tensor:
    """The row and its squares, or its products of pairs, (N, P)."""
    pairs = x.square() if diagonal else (x[..., :, None] * x[..., None, :]).flatten(-2)
    return torch.cat([x, pairs], -1)


def _natural(loc: Tensor, factor: Tensor) -> Tensor:
    """What the features are multiplied by, (K, P)."""
    if factor.ndim == loc.ndim:
        return torch.cat([factor.square() * loc, -factor.square() / 2], -1)
    precision = factor.mT @ factor  # (K, D, D)
    return torch.cat([(precision @ loc[..., None])[..., 0], -precision.flatten(-2) / 2], -1)


def _rows(q: Tensor, x: Tensor) -> int:
    """Rows of a chunk."""
    return max(1, CHUNK // (q.shape[1] * x.shape[1]))
