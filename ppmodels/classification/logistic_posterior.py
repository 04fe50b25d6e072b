"""Gaussian posteriors of logistic regression, Laplace's and the variational one, and what they predict."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ppmodels.base import Data
from ppmodels.classification.logistic import LogisticRegression
from ppmodels.classification.logistic_mode import newton, precision

NODES, REACH = 161, 8.5  # of the quadrature: how many, and to how many sds


@dataclass(frozen=True)
class GaussianPosterior:
    """N(mean, covariance) over coef, (Q,) and (Q, Q); log_evidence: its approximation, or bound, of log p(y | x)."""

    model: LogisticRegression
    mean: Tensor
    covariance: Tensor
    log_evidence: float

    def predict(self, data: Data, *, mackay: bool = False) -> Tensor:
        """Return the probability of class 1 in each row, (N,), with coef integrated out.

        mackay: by the probit approximation instead of quadrature.
        """
        design = self.model.design(data)
        mean, variance = design @ self.mean, ((design @ self.covariance) * design).sum(-1)  # (N,)
        return probit_sigmoid(mean, variance) if mackay else expected_sigmoid(mean, variance)


def expected_sigmoid(mean: Tensor, variance: Tensor) -> Tensor:
    r"""Return the mean of a sigmoid under a Gaussian, by quadrature.

    .. math:: \int \sigma(f) N(f; m, v) df
    """
    return _expect(torch.sigmoid, torch.as_tensor(mean), torch.as_tensor(variance))


def probit_sigmoid(mean: Tensor, variance: Tensor) -> Tensor:
    r"""Return an approximation of the same, as the sigmoid is nearly a probit: s(m / sqrt(1 + pi v / 8)).

    Source: MacKay (1992), Neural Computation 4, 720-736; Spiegelhalter and Lauritzen (1990).
    """
    mean, variance = torch.as_tensor(mean), torch.as_tensor(variance)
    return (mean / (1 + math.pi * variance / 8).sqrt()).sigmoid()


def laplace(model: LogisticRegression, data: Data) -> GaussianPosterior:
    """Return the Gaussian at the mode with the density's curvature there.

    Source: Spiegelhalter and Lauritzen (1990), Networks 20; MacKay (1992).
    """
    coef = newton(model, data)
    root = torch.linalg.cholesky(precision(model, data, coef))
    linear = (2 * data.observed["y"].to(coef) - 1) * (model.design(data) @ coef)
    prior = coef.square().sum() / model.spread**2 / 2 + len(coef) * math.log(model.spread)
    log_evidence = torch.nn.functional.logsigmoid(linear).sum() - prior - root.diagonal().log().sum()
    return GaussianPosterior(model, coef, torch.cholesky_inverse(root), float(log_evidence))


def elbo(model: LogisticRegression, data: Data, mean: Tensor, root: Tensor) -> Tensor:
    r"""Return the evidence bound of N(mean, root root'), (): one-dimensional expectations, and a KL in closed form.

    .. math:: \sum_n E[\log \sigma(y_n f_n)] - \tfrac12 \left(\frac{\mathrm{tr}\,\Sigma + |\mu|^2}{s^2} - Q
        - \log |\Sigma| + Q \log s^2\right)

    root: lower triangular (Q, Q), or for independent coefficients their sds (Q,).
    """
    design, spread = model.design(data), model.spread
    sign = 2 * data.observed["y"].to(design) - 1
    white = design * root if root.ndim == 1 else design @ root  # (N, Q)
    fitted = _expect(torch.nn.functional.logsigmoid, sign * (design @ mean), white.square().sum(-1))
    log_root = (root if root.ndim == 1 else root.diagonal()).abs().log().sum()
    size = (root.square().sum() + mean.square().sum()) / spread**2
    return fitted.sum() - (size - len(mean) - 2 * log_root + 2 * len(mean) * math.log(spread)) / 2


def variational(
    model: LogisticRegression, data: Data, *, diagonal: bool = False, num_steps: int = 200
) -> GaussianPosterior:
    """Return the Gaussian with the highest bound, by L-BFGS on an objective without noise.

    diagonal: coefficients independent. It starts from Laplace's Gaussian, so its bound is no lower than that one's.
    Source: Challis and Barber (2013), J. Machine Learning Research 14, on why the bound is concave in mean and root.
    """
    start = laplace(model, data)
    mean = start.mean.clone().requires_grad_()
    lower = start.covariance.diagonal().sqrt() if diagonal else torch.linalg.cholesky(start.covariance)
    free = lower.contiguous().requires_grad_()
    search = torch.optim.LBFGS(
        [mean, free], max_iter=num_steps, tolerance_grad=1e-10, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        search.zero_grad()
        loss = -elbo(model, data, mean, free if diagonal else free.tril())
        loss.backward()
        return loss.detach().item()

    search.step(closure)
    with torch.no_grad():
        root = free.detach() if diagonal else free.detach().tril()
        bound = elbo(model, data, mean, root)
        covariance = root.square().diag() if diagonal else root @ root.mT
    return GaussianPosterior(model, mean.detach(), covariance, float(bound))


def _expect(function: Callable[[Tensor], Tensor], mean: Tensor, variance: Tensor) -> Tensor:
    """The mean of a function of one Gaussian number, by the trapezoid rule, whose error falls exponentially here."""
    nodes = torch.linspace(-REACH, REACH, NODES, dtype=mean.dtype, device=mean.device)
    weights = torch.softmax(-nodes.square() / 2, 0)
    return function(mean[..., None] + variance.sqrt()[..., None] * nodes) @ weights
