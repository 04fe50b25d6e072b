"""Gaussian process regression: a smooth function of unknown scales, summed out."""

from dataclasses import dataclass
from typing import ClassVar

import pyro
import torch
from torch import Tensor

from ppmodels.base import Data, Theta, dims
from ppmodels.kernels._marginal import Family, GaussianProcessMarginal
from ppmodels.kernels._scales import check_fields, kernel_of, log_normal, over_draws, sample_scales
from ppmodels.kernels.ridge import KernelRidge


@dataclass(frozen=True)
class GaussianProcess:
    r"""Gaussian process with one lengthscale a column; given its scales, its mean is kernel ridge regression.

    .. math:: \ell_j \sim \mathrm{LN}(\log L, c^2),\; a \sim \mathrm{LN}(\log A, c^2),\;
        s \sim \mathrm{LN}(\log S, c^2),\; y \sim N(0,\, a^2 k(x / \ell) + s^2 I)

    with L, A, S, c = lengthscale, amplitude, noise, spread; with more `outputs` so is each, by the same scales.

    Latents:  lengthscale (D,), unit of x; amplitude (), unit of y; noise (), unit of y. The
              function is summed out.
    Given:    x (N, D).
    Observed: y (N, Q), or (N,) of one output.
    Source:   Rasmussen and Williams (2006), Gaussian Processes for Machine Learning, sections 2.2 and 5.4.
    """

    dim: int = 1
    outputs: int = 1
    family: Family = "rbf"
    lengthscale: float = 1.0
    amplitude: float = 1.0
    noise: float = 0.2
    spread: float = 1.0
    observed: ClassVar[tuple[str, ...]] = ("y",)
    __post_init__ = check_fields

    def inputs(self, rows: int) -> dict[str, Tensor]:
        """Points on a line through the origin."""
        return {"x": torch.linspace(-2, 2, rows)[:, None].repeat(1, self.dim)}

    def model(self, data: Data) -> None:
        x, lengthscale, amplitude = sample_scales(self, data)
        noise = pyro.sample("noise", log_normal(self.noise, self.spread))
        law = GaussianProcessMarginal(x, lengthscale, amplitude, noise, self.family, self.outputs)
        pyro.sample("y", law, infer=dims("rows", "output") if self.outputs > 1 else dims("rows"))

    def regression(self, theta: Theta, data: Data) -> KernelRidge:
        """Return the functions' posterior at these scales: their means, and their variance over amplitude^2."""
        penalty = float((theta["noise"] / theta["amplitude"]).square())
        kernel = kernel_of(self.family, theta["lengthscale"])
        return KernelRidge.fit(data.given["x"], data.observed["y"], kernel, penalty)

    def function(self, draws: Theta, data: Data, new: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the sd of the functions at new points (n, D), given each draw of the scales (..., *site).

        Both are (..., n), or (..., n, Q) of more outputs. `fit.predict` draws functions that have not been seen yet.
        """

        def moments(theta: Theta) -> tuple[Tensor, Tensor]:
            fitted = self.regression(theta, data)
            mean, sd = fitted.predict(new), theta["amplitude"] * fitted.variance(new).sqrt()
            return mean, sd.reshape(-1, *[1] * (mean.ndim - 1)).expand_as(mean)

        return over_draws(moments, draws, draws["amplitude"].shape)
