"""Gaussian processes that vary together: covariance B (x) K, of which only Q matrices (N, N) are ever made."""

import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from ppmodels.kernels._marginal import Family, cholesky, gram_and_slope, refuse_plate


class _LogMarginal(torch.autograd.Function):
    r"""log Normal(vec y; 0, B (x) K + I), with its first and second derivatives, of K (N, N), B (Q, Q), y (N, Q).

    With :math:`B = U S U^\top` the columns of y U are independent, of covariances :math:`S_q K + I = P_q^{-1}`. For
    :math:`A = C^{-1} y,\; M = \sum_q S_q P_q,\; T = U \mathrm{diag}(\mathrm{tr}\,K P_q)\, U^\top`:

    .. math:: 2\,dL = \mathrm{tr}\,(A B A^\top - M)\, dK + \mathrm{tr}\,(A^\top K A - T)\, dB
        - 2\,\mathrm{tr}\,A^\top dy

    A, M and T are outputs as well, with derivatives of their own: so the gradient can be differentiated, also where
    eigenvalues of B coincide, which an eigendecomposition's derivative cannot.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(gram: Tensor, between: Tensor, y: Tensor) -> Any:
        strength, mixing = torch.linalg.eigh(between)  # (Q,), (Q, Q)
        eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        factor = cholesky(strength.clamp(min=0)[:, None, None] * gram + eye)  # (Q, N, N)
        inverse = torch.cholesky_inverse(factor)
        alpha = torch.einsum("qnm,mq->nq", inverse, y @ mixing) @ mixing.mT
        log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum()
        value = -(y * alpha).sum() / 2 - log_det - y.numel() / 2 * math.log(2 * math.pi)
        by_gram = (strength[:, None, None] * inverse).sum(0)  # M
        by_between = (mixing * (inverse * gram).sum((-2, -1))) @ mixing.mT  # T
        return value, alpha, by_gram, by_between, strength, mixing, inverse

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, alpha, by_gram, by_between, *parts = output
        ctx.mark_non_differentiable(*parts)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs[0], inputs[1], alpha, by_gram, by_between, *parts)

    @staticmethod
    def backward(ctx: Any, *upstreams: Any) -> Any:
        gram, between, alpha, by_gram, by_between, *parts = ctx.saved_tensors
        first, second = upstreams[0], upstreams[1:4]
        found = gram.new_zeros(()), gram.new_zeros(()), gram.new_zeros(())
        if first is not None:
            inner = alpha @ between @ alpha.mT - by_gram, alpha.mT @ gram @ alpha - by_between
            found = first / 2 * inner[0], first / 2 * inner[1], -first * alpha
        if any(each is not None for each in second):
            more = _second(gram, between, alpha, *parts, *second)
            found = tuple(a + b for a, b in zip(found, more, strict=True))
        return found


def _second(
    gram: Tensor,
    between: Tensor,
    alpha: Tensor,
    strength: Tensor,
    mixing: Tensor,
    inverse: Tensor,
    to_alpha: Tensor | None,
    to_gram: Tensor | None,
    to_between: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Derivatives by K, B and y through A, M and T, given those by A (N, Q), M (N, N) and T (Q, Q)."""
    by_gram, by_between, by_y = torch.zeros_like(gram), torch.zeros_like(between), torch.zeros_like(alpha)
    if to_alpha is not None:
        by_y = torch.einsum("qnm,mq->nq", inverse, to_alpha @ mixing) @ mixing.mT
        by_gram = by_gram - _symmetric(by_y @ between @ alpha.mT)
        by_between = by_between - _symmetric(by_y.mT @ gram @ alpha)
    if to_gram is not None:
        around = inverse @ _symmetric(to_gram) @ inverse  # (Q, N, N)
        by_gram = by_gram - (strength.square()[:, None, None] * around).sum(0)
        by_between = by_between + (mixing * around.diagonal(dim1=-2, dim2=-1).sum(-1)) @ mixing.mT
    if to_between is not None:
        inside = mixing.mT @ _symmetric(to_between) @ mixing
        by_gram = by_gram + (inside.diagonal()[:, None, None] * (inverse @ inverse)).sum(0)
        both = inverse @ gram  # (Q, N, N)
        by_between = by_between - mixing @ (inside * torch.einsum("qnm,pmn->qp", both, both)) @ mixing.mT
    return by_gram, by_between, by_y


class CoregionalisedMarginal(TorchDistribution):
    """y (N, Q) ~ Normal(0, B (x) k(x / l) + diag(s)^2 (x) I), B = F F': functions that vary together, summed out."""

    arg_constraints = {}  # type: ignore[assignment]
    support = constraints.independent(constraints.real, 2)  # type: ignore[assignment]

    def __init__(self, x: Tensor, lengthscale: Tensor, factor: Tensor, noise: Tensor, family: Family = "rbf") -> None:
        self.x, self.lengthscale, self.factor, self.noise = x, lengthscale, factor, noise
        self.family: Family = family
        super().__init__(torch.Size(), torch.Size((len(x), len(noise))), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "CoregionalisedMarginal":
        refuse_plate(self, batch_shape)
        return self

    def log_prob(self, value: Tensor) -> Tensor:
        gram, _ = gram_and_slope(self.x / self.lengthscale, self.family)
        factor = self.factor / self.noise[:, None]  # so that the noise of every output is 1
        between = factor @ factor.mT
        sound = between.isfinite().all() & gram.isfinite().all()  # eigh refuses a whole batch for one that is not
        eye = torch.eye(len(between), dtype=gram.dtype, device=gram.device)
        own = torch.where(sound, gram, 0.0), torch.where(sound, between, eye), value / self.noise
        found = _LogMarginal.apply(*own)[0] - len(self.x) * self.noise.log().sum()  # type: ignore[index]
        return torch.where(sound, found, torch.nan)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            gram, _ = gram_and_slope(self.x / self.lengthscale, self.family)
            eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
            smooth, rough = torch.randn(2, *sample_shape, *self.event_shape, dtype=gram.dtype, device=gram.device)
            return cholesky(gram + 1e-10 * eye) @ smooth @ self.factor.mT + rough * self.noise


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.mT) / 2
