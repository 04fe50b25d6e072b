"""Gaussian process regression of several outputs that vary together."""

from dataclasses import dataclass
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppmodels.base import Data, Theta, dims
from ppmodels.kernels._coregionalised import CoregionalisedMarginal
from ppmodels.kernels._marginal import Family
from ppmodels.kernels._scales import check_fields, kernel_of, log_normal, over_draws, sample_lengthscale
from ppmodels.kernels.coregionalised_ridge import CoregionalisedRidge


@dataclass(frozen=True)
class CoregionalisedGaussianProcess:
    r"""Gaussian processes of one kernel whose values at a point are correlated: the intrinsic coregionalisation model.

    .. math:: \ell_j \sim \mathrm{LN}(\log L, c^2),\; a_q \sim \mathrm{LN}(\log A, c^2),\;
        s_q \sim \mathrm{LN}(\log S, c^2),\; R = F F^\top \sim \mathrm{LKJ}(\eta),\;
        \mathrm{vec}\, y \sim N(0,\, \mathrm{diag}(a) R\, \mathrm{diag}(a) \otimes k(x / \ell)
        + \mathrm{diag}(s)^2 \otimes I)

    with L, A, S, c, eta = lengthscale, amplitude, noise, spread, concentration. At R = I each output is a `gp`.

    Latents:  lengthscale (D,), unit of x; amplitude (Q,) and noise (Q,), units of y; factor (Q, Q), the F, lower;
              correlation (Q, Q), the R, computed. The functions are summed out.
    Given:    x (N, D).
    Observed: y (N, Q).
    Source:   Bonilla, Chai and Williams (2008), Multi-task Gaussian process prediction, NIPS 20.
    """

    dim: int = 1
    outputs: int = 2
    family: Family = "rbf"
    lengthscale: float = 1.0
    amplitude: float = 1.0
    noise: float = 0.2
    spread: float = 1.0
    concentration: float = 2.0
    observed: ClassVar[tuple[str, ...]] = ("y",)

    def __post_init__(self) -> None:
        """Check the fields."""
        check_fields(self)
        if self.outputs < 2:
            raise ValueError("outputs must be at least 2; one output is the model gp")

    def inputs(self, rows: int) -> dict[str, Tensor]:
        """Points on a line through the origin."""
        return {"x": torch.linspace(-2, 2, rows)[:, None].repeat(1, self.dim)}

    def model(self, data: Data) -> None:
        x, lengthscale = sample_lengthscale(self, data)
        with pyro.plate("output", self.outputs, dim=-1):
            amplitude = pyro.sample("amplitude", log_normal(self.amplitude, self.spread))
            noise = pyro.sample("noise", log_normal(self.noise, self.spread))
        law = dist.LKJCholesky(self.outputs, torch.tensor(self.concentration))
        factor = pyro.sample("factor", law, infer=dims("output", "other"))  # (Q, Q)
        pyro.deterministic("correlation", factor @ factor.mT, event_dim=2)
        marginal = CoregionalisedMarginal(x, lengthscale, amplitude[:, None] * factor, noise, self.family)
        pyro.sample("y", marginal, infer=dims("rows", "output"))

    def regression(self, theta: Theta, data: Data) -> CoregionalisedRidge:
        """Return the functions' posterior at these latents."""
        factor = theta["amplitude"][:, None] * theta["factor"]
        kernel = kernel_of(self.family, theta["lengthscale"])
        y = data.observed["y"]
        return CoregionalisedRidge.fit(data.given["x"], y, kernel, factor @ factor.mT, theta["noise"])

    def function(self, draws: Theta, data: Data, new: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the sd of the functions at new points (n, D), given each draw of latents (..., *site).

        Both are (..., n, Q). `fit.predict` draws functions that have not been seen yet.
        """

        def moments(theta: Theta) -> tuple[Tensor, Tensor]:
            fitted = self.regression(theta, data)
            return fitted.predict(new), fitted.variance(new).sqrt()

        return over_draws(moments, draws, draws["amplitude"].shape[:-1])
