"""The inverse Hessian that the last few steps of a climb imply, for many paths at once, in compact form.

    H = diag(scale) + [scale Y, S] [[0, -R^-1], [-R^-T, R^-T (E + Y' scale Y) R^-1]] [scale Y, S]'

S, Y are (M, D): steps, and changes of the gradient of the negative log density; R is the upper triangle of
S Y', and E its diagonal. A slot of zeros adds nothing.

Source: Byrd, Nocedal and Schnabel (1994), theorem 2.2.
"""

import torch
from torch import Tensor


class Curvature:
    """The last `memory` pairs of every path; s, y (P, M, D), scale (P, D), count (P,)."""

    def __init__(self, like: Tensor, memory: int) -> None:
        paths, dim = like.shape
        self.s = like.new_zeros(paths, memory, dim)
        self.y = like.new_zeros(paths, memory, dim)
        self.scale = torch.ones_like(like)
        self.count = torch.zeros(paths, dtype=torch.long, device=like.device)

    def remember(self, which: Tensor, s: Tensor, y: Tensor) -> None:
        """Take a new pair, s, y (P, D), into these paths, (P,), where it has positive curvature."""
        scale = diagonal(self.scale, s, y)
        good = which & curved(s, y) & scale.isfinite().all(-1)
        wide = good[:, None, None]
        self.s = torch.where(wide, torch.cat([self.s[:, 1:], s[:, None]], 1), self.s)
        self.y = torch.where(wide, torch.cat([self.y[:, 1:], y[:, None]], 1), self.y)
        self.scale = torch.where(good[:, None], scale, self.scale)
        self.count = self.count + good

    def forget(self, which: Tensor) -> None:
        """Begin these paths anew."""
        wide = which[:, None]
        self.s = self.s.masked_fill(wide[..., None], 0.0)
        self.y = self.y.masked_fill(wide[..., None], 0.0)
        self.scale = self.scale.masked_fill(wide, 1.0)
        self.count = self.count.masked_fill(which, 0)

    def times(self, g: Tensor) -> Tensor:
        """Return H g, (P, D), for g (P, D)."""
        product = self.s @ self.y.mT  # (P, M, M)
        r, energy = triangle(product), product.diagonal(dim1=-2, dim2=-1)[..., None]
        v = torch.linalg.solve_triangular(r, self.s @ g[..., None], upper=True)  # (P, M, 1)
        z = self.scale[..., None] * (g[..., None] - self.y.mT @ v)  # (P, D, 1)
        w = torch.linalg.solve_triangular(r.mT, energy * v - self.y @ z, upper=False)
        return (z + self.s.mT @ w)[..., 0]


def triangle(product: Tensor) -> Tensor:
    """Return R, (..., M, M), of S Y', with ones for the empty slots."""
    empty = product.diagonal(dim1=-2, dim2=-1) == 0
    return product.triu() + torch.diag_embed(empty.to(product.dtype))


def curved(s: Tensor, y: Tensor) -> Tensor:
    """Which pairs, (..., D), have a curvature that is positive beyond rounding, (...)."""
    return (s * y).sum(-1) > 1e-12 * (y * y).sum(-1)


def diagonal(scale: Tensor, s: Tensor, y: Tensor) -> Tensor:
    """Return the diagonal, (..., D), that a new pair turns `scale` into.

    Source: Gilbert and Lemaréchal (1989), equation 4.9; Zhang et al. (2022), algorithm 3.
    """
    yay, sy = (y * scale * y).sum(-1, keepdim=True), (s * y).sum(-1, keepdim=True)
    ratio = s / scale
    sas = (s * ratio).sum(-1, keepdim=True)
    return sy / (yay / scale + y * y - yay * ratio * ratio / sas)
