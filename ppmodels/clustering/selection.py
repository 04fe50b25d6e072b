"""How many components, and how sure of them: criteria by the likelihood, and standard errors by its curvature."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import biject_to, constraints

from ppmodels.base import Data, Theta
from ppmodels.clustering.gmm import GaussianMixture


class Criteria(NamedTuple):
    """Lower is better: -2 log p and a price for the number of parameters.

    aic: 2 a parameter. bic: log N a parameter. icl: bic, and twice the entropy of the memberships, so that clusters
    must also be apart.
    Source: Akaike (1974); Schwarz (1978); Biernacki, Celeux and Govaert (2000), IEEE PAMI 22.
    """

    aic: float
    bic: float
    icl: float


def free_parameters(model: GaussianMixture) -> int:
    """Return how many numbers the mixture learns."""
    k, d = model.components, model.dim
    shape = {"full": k * d * (d + 1) // 2, "tied": d * (d + 1) // 2, "diagonal": k * d, "spherical": k}
    return k - 1 + k * d + shape[model.covariance]


def criteria(model: GaussianMixture, theta: Theta, data: Data) -> Criteria:
    """Return the criteria at the top of the likelihood."""
    q, log_likelihood = model.e_step(theta, data)
    weight = data.given.get("weight")
    rows = float(len(q) if weight is None else weight.sum())
    entropy = -torch.special.xlogy(q, q).sum(-1)  # (N,)
    surprise = float((entropy if weight is None else entropy * weight).sum())
    size, misfit = free_parameters(model), -2 * float(log_likelihood)
    bic = misfit + size * math.log(rows)
    return Criteria(misfit + 2 * size, bic, bic + 2 * surprise)


def standard_errors(model: GaussianMixture, theta: Theta, data: Data, *, sandwich: bool = False) -> Theta:
    r"""Return the standard error of every parameter, by site, at the top of the likelihood.

    .. math:: V[\hat\theta] \approx H^{-1}, \quad \text{or} \quad H^{-1} \Big(\sum_n s_n s_n^\top\Big) H^{-1}

    with H minus the second derivative of log p(x | theta) (observed information, missing memberships counted) and
    s_n each row's score, in unconstrained coordinates; the last is right also where the rows are no mixture.
    Raises: ArithmeticError when theta is no strict maximum, as with too many components.
    Source: McLachlan and Peel (2000), section 2.15; Louis (1982); White (1982), Econometrica 50.
    """
    x, weight = data.observed["x"].double(), data.given.get("weight")
    transforms = {name: _transform(name) for name in theta}
    free = {name: transforms[name].inv(value.detach().double()) for name, value in theta.items()}
    shapes = {name: value.shape for name, value in free.items()}
    flat = torch.cat([value.reshape(-1) for value in free.values()])

    def back(vector: Tensor) -> Theta:
        parts = vector.split([shape.numel() for shape in shapes.values()])
        return {n: transforms[n](p.reshape(s)) for (n, s), p in zip(shapes.items(), parts, strict=True)}

    def rows(vector: Tensor) -> Tensor:
        score = model._log_joint(back(vector), Data(len(x), observed={"x": x})).logsumexp(-1)
        return score if weight is None else score * weight

    hessian: Any = torch.autograd.functional.hessian(lambda v: rows(v).sum(), flat)
    information = -hessian
    root, failed = torch.linalg.cholesky_ex(information)
    if failed:
        raise ArithmeticError("the likelihood is not curved down in every direction; take fewer components")
    variance = torch.cholesky_inverse(root)
    if sandwich:
        score: Any = torch.autograd.functional.jacobian(rows, flat)  # (N, F)
        variance = variance @ (score.mT @ score) @ variance
    slope: Any = torch.autograd.functional.jacobian(
        lambda v: torch.cat([p.reshape(-1) for p in back(v).values()]), flat
    )
    spread = ((slope @ variance) * slope).sum(-1).clamp(min=0).sqrt()
    parts = spread.split([value.numel() for value in theta.values()])
    return {name: part.reshape(theta[name].shape) for name, part in zip(theta, parts, strict=True)}


def _transform(name: str) -> Any:
    """From the line to the site's values."""
    support = {"weights": constraints.simplex, "precision": constraints.positive}
    return biject_to(support.get(name, constraints.real))
