"""The marginal likelihood of a Gaussian process with its gradient in closed form, and the distribution around it."""

import math
from typing import Any, Literal

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from ppmodels.kernels.functions import squared_distance

Family = Literal["rbf", "matern12", "matern32", "matern52"]


class _LogMarginal(torch.autograd.Function):
    """log Normal(y; 0, a^2 k(x / l) + s^2 I) of y (N,) or each of its columns (N, Q), x (N, D), l (D,), a (), s ()."""

    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor, x: Tensor, lengthscale: Tensor, amplitude: Tensor, noise: Tensor, family: Family) -> Any:
        gram, slope = gram_and_slope(x / lengthscale, family)
        gram, slope = amplitude.square() * gram, amplitude.square() * slope
        factor = cholesky(gram + noise.square() * torch.eye(len(y), dtype=y.dtype, device=y.device))
        columns = y.reshape(len(y), -1)  # (N, Q)
        alpha = torch.cholesky_solve(columns, factor)
        log_det = columns.shape[1] * factor.diagonal().log().sum()
        value = -(columns * alpha).sum() / 2 - log_det - columns.numel() / 2 * math.log(2 * math.pi)
        return value, gram, slope, factor, alpha

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *tensors, ctx.family = inputs
        _, *parts = output
        ctx.mark_non_differentiable(*parts)
        ctx.save_for_backward(*tensors, *parts)

    @staticmethod
    def backward(ctx: Any, *upstreams: Any) -> Any:
        upstream, (y, x, lengthscale, amplitude, noise, *parts) = upstreams[0], ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again: what was saved remembers no inputs
            z = x / lengthscale
            gram, slope = (amplitude.square() * part for part in gram_and_slope(z, ctx.family))
            factor = cholesky(gram + noise.square() * torch.eye(len(y), dtype=y.dtype, device=y.device))
            parts = gram, slope, factor, torch.cholesky_solve(y.reshape(len(y), -1), factor)
        by_y, *by = _gradient(x / lengthscale, lengthscale, amplitude, noise, *parts)
        return upstream * by_y.reshape(y.shape), None, *(upstream * part for part in by), None


def log_marginal(
    y: Tensor, x: Tensor, lengthscale: Tensor, amplitude: Tensor, noise: Tensor, family: Family = "rbf"
) -> Tensor:
    """Return the log marginal likelihood, (), of all outputs; NaN where the covariance is singular.

    All but x may be differentiated, twice.
    """
    return _LogMarginal.apply(y, x, lengthscale, amplitude, noise, family)[0]  # type: ignore[index]


def _gradient(
    z: Tensor,
    lengthscale: Tensor,
    amplitude: Tensor,
    noise: Tensor,
    gram: Tensor,
    slope: Tensor,
    factor: Tensor,
    alpha: Tensor,
) -> tuple[Tensor, ...]:
    r"""Return d/dy, l, a, s, from :math:`\tfrac12 \mathrm{tr}\,(\alpha\alpha^\top - Q C^{-1})\, dC`, alpha (N, Q).

    No matrix is made for a parameter: with V = (aa' - Q C^-1) * a^2 f'(d^2) and its row sums r,
    d/dl_j = -2 (r' z_j^2 - z_j' V z_j) / l_j.

    Source: Rasmussen and Williams (2006), equation 5.9.
    """
    inner = torch.addmm(torch.cholesky_inverse(factor), alpha, alpha.mT, beta=-alpha.shape[1])  # (N, N)
    weight = inner * slope
    spread = (weight.sum(1)[:, None] * z.square()).sum(0) - (z * (weight @ z)).sum(0)  # (D,)
    return -alpha, -2 * spread / lengthscale, (inner * gram).sum() / amplitude, noise * inner.trace()


def gram_and_slope(z: Tensor, family: Family) -> tuple[Tensor, Tensor]:
    """Return f(d^2) and its derivative f'(d^2) of all pairs of z (N, D), each (N, N)."""
    squared = squared_distance(z, z)
    if family == "rbf":
        gram = (-squared / 2).exp()
        return gram, -gram / 2
    off = squared > 1e-13  # at distance 0 the root has no derivative, and its factor z_i - z_j is 0
    root = torch.where(off, squared, 1.0).sqrt()
    if family == "matern12":
        gram = torch.where(off, (-root).exp(), 1.0)
        return gram, torch.where(off, -gram / (2 * root), 0.0)
    order = {"matern32": 3, "matern52": 5}[family]
    r = torch.where(off, math.sqrt(order) * root, 0.0)
    decay = (-r).exp()
    if order == 3:
        return (1 + r) * decay, -1.5 * decay
    return (1 + r + r.square() / 3) * decay, -5 / 6 * (1 + r) * decay


class GaussianProcessMarginal(TorchDistribution):
    """Each output of y ~ Normal(0, a^2 k(x / l) + s^2 I): functions, summed out, at N points, with noise.

    y is (N, Q), or (N,) of one output.
    """

    arg_constraints = {}  # type: ignore[assignment]

    def __init__(
        self,
        x: Tensor,
        lengthscale: Tensor,
        amplitude: Tensor,
        noise: Tensor,
        family: Family = "rbf",
        outputs: int = 1,
    ) -> None:
        self.x, self.lengthscale, self.amplitude, self.noise = x, lengthscale, amplitude, noise
        self.family: Family = family
        event = x.shape[:1] if outputs == 1 else torch.Size((len(x), outputs))
        super().__init__(torch.Size(), event, validate_args=False)

    @property
    def support(self) -> Any:  # type: ignore[override]
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "GaussianProcessMarginal":
        refuse_plate(self, batch_shape)
        return self

    def log_prob(self, value: Tensor) -> Tensor:
        return log_marginal(value, self.x, self.lengthscale, self.amplitude, self.noise, self.family)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            gram, _ = gram_and_slope(self.x / self.lengthscale, self.family)
            eye = torch.eye(len(self.x), dtype=gram.dtype, device=gram.device)
            factor = cholesky(self.amplitude.square() * gram + self.noise.square() * eye)
            noise = torch.randn(*sample_shape, *self.event_shape, dtype=gram.dtype, device=gram.device)
            return noise @ factor.mT if len(self.event_shape) == 1 else factor @ noise


def refuse_plate(law: TorchDistribution, batch_shape: Any) -> None:
    """Raise a ValueError where the rows of a process would be copied by a plate."""
    if torch.Size(batch_shape) != law.batch_shape:
        raise ValueError("the rows of a Gaussian process depend on one another; it stands in no plate")


def cholesky(covariance: Tensor) -> Tensor:
    """Return the factor; NaN where there is none, so that one bad point spoils no batch."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    return torch.where((failed == 0)[..., None, None], factor, float("nan"))
