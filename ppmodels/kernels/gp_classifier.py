"""Gaussian process classification: a smooth function, squashed, is the probability of class 1."""

from dataclasses import dataclass
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppmodels.base import Data, Theta, dims
from ppmodels.kernels._marginal import Family, gram_and_slope
from ppmodels.kernels._scales import check_fields, sample_scales
from ppmodels.kernels._squash import mean_sigmoid


@dataclass(frozen=True)
class GaussianProcessClassifier:
    r"""Two classes, told apart by the sign of a Gaussian process, which is kept as a latent.

    .. math:: \ell_j \sim \mathrm{LN}(\log L, c^2),\; a \sim \mathrm{LN}(\log A, c^2),\; z \sim N(0, I),\;
        f = a\, \mathrm{chol}(k(x / \ell) + j I)\, z,\; y_n \sim \mathrm{Bernoulli}(\sigma(f_n))

    with L, A, c, j = lengthscale, amplitude, spread, jitter. Whitened, f depends little on its scales, so that
    every back end can move; at given scales Laplace in z is Laplace in f.

    Latents:  lengthscale (D,), unit of x; amplitude (), log odds; white (N,), the z.
    Given:    x (N, D).
    Observed: y (N,), 0 or 1.
    Source:   Rasmussen and Williams (2006), Gaussian Processes for Machine Learning, sections 3.3 and 3.4.
    """

    dim: int = 1
    family: Family = "rbf"
    lengthscale: float = 1.0
    amplitude: float = 2.0
    spread: float = 0.5
    jitter: float = 1e-6
    observed: ClassVar[tuple[str, ...]] = ("y",)
    __post_init__ = check_fields

    def inputs(self, rows: int) -> dict[str, Tensor]:
        """Points on a line through the origin."""
        return {"x": torch.linspace(-3, 3, rows)[:, None].repeat(1, self.dim)}

    def model(self, data: Data) -> None:
        x, lengthscale, amplitude = sample_scales(self, data)
        white = pyro.sample("white", dist.Normal(torch.zeros_like(x[:, 0]), 1.0).to_event(1), infer=dims("rows"))
        f = amplitude * (self._factor(x, lengthscale) @ white[..., None])[..., 0]  # (N,)
        pyro.sample("y", dist.Bernoulli(logits=f).to_event(1), infer=dims("rows"))

    def probability(self, draws: Theta, data: Data, new: Tensor) -> Tensor:
        """Return p(y = 1) at new points (n, D) for each draw of the latents (..., *site), (..., n).

        Given a draw the function at new points is normal, and the logistic is averaged over it by quadrature; the
        mean over draws is the prediction.
        """
        x, shape = data.given["x"], draws["amplitude"].shape
        flat = {name: draw.reshape(-1, *draw.shape[len(shape) :]) for name, draw in draws.items()}
        return torch.stack([
            mean_sigmoid(*self._at(x, new.to(x), ell, a, z))
            for ell, a, z in zip(flat["lengthscale"], flat["amplitude"], flat["white"], strict=True)
        ]).reshape(*shape, len(new))  # fmt: skip

    def _at(self, x: Tensor, new: Tensor, ell: Tensor, a: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and sd of f at new points given z at the rows, (n,) each."""
        gram, _ = gram_and_slope(torch.cat([x, new]) / ell, self.family)
        across = torch.linalg.solve_triangular(self._factor(x, ell), gram[: len(x), len(x) :], upper=False)  # (N, n)
        return a * (z @ across), a * (1 - across.square().sum(0)).clamp(min=0).sqrt()

    def _factor(self, x: Tensor, lengthscale: Tensor) -> Tensor:
        gram, _ = gram_and_slope(x / lengthscale, self.family)
        return torch.linalg.cholesky(gram + self.jitter * torch.eye(len(x), dtype=x.dtype, device=x.device))
