"""Statistical learning: the rule of least empirical risk, under the 0-1 loss and what stands in for it."""

from typing import Literal

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

Surrogate = Literal["logistic", "exponential", "hinge", "squared"]


def zero_one(margin: Tensor) -> Tensor:
    """Return 1 where the margin y f(x), y = -1 or 1, is not positive: a mistake, (...)."""
    return (margin <= 0).to(margin)


def surrogate(margin: Tensor, loss: Surrogate) -> Tensor:
    """Return a convex loss of the margin, scaled so that it is never below the 0-1 loss, (...)."""
    if loss == "logistic":
        return torch.nn.functional.softplus(-margin) / np.log(2)
    if loss == "exponential":
        return (-margin).exp()
    return (1 - margin).clamp(min=0) if loss == "hinge" else (1 - margin).square()


def minimise_surrogate(
    x: Tensor, y: Tensor, loss: Surrogate = "logistic", ridge: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """Return slope w (D,) and offset b () of the line of least empirical risk, for x (N, D) and y (N,), 0 or 1.

    ridge: half of it times the squared slope is added, so that a minimum exists where a plane tells the classes apart.
    """
    design = torch.cat([x, torch.ones_like(x[:, :1])], -1) * _signs(y).to(x)[:, None]  # (N, D + 1)
    if loss == "hinge":
        found = _hinge(design.double().cpu().numpy(), ridge)
        return torch.as_tensor(found[:-1]).to(x), torch.as_tensor(found[-1]).to(x)

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        weights = torch.as_tensor(point).to(x).requires_grad_()
        risk = surrogate(design @ weights, loss).mean() + ridge / 2 * weights[:-1].square().sum()
        (slope,) = torch.autograd.grad(risk, weights)
        return risk.item(), slope.double().cpu().numpy()

    options = {"ftol": 1e-15, "gtol": 1e-10, "maxiter": 1000}
    found = optimize.minimize(objective, np.zeros(design.shape[1]), jac=True, method="L-BFGS-B", options=options).x
    return torch.as_tensor(found[:-1]).to(x), torch.as_tensor(found[-1]).to(x)


def minimise_zero_one(x: Tensor, y: Tensor) -> tuple[int, float, int, float]:
    """Return the threshold rule of fewest mistakes: column, threshold, sign, and its empirical risk.

    It says 1 where sign * (x[:, column] - threshold) > 0. Over thresholds the 0-1 loss is minimised exactly, in
    O(N D log N); over all planes that is as hard as anything in NP, which is what surrogates are for.
    """
    signs, best = _signs(y).double(), (0, -np.inf, 1, np.inf)
    for column in range(x.shape[1]):
        value, order = x[:, column].double().sort()
        label = signs[order]
        below = torch.cat([label.new_zeros(1), (label > 0).cumsum(0).double()])  # class 1 at or below each cut
        wrong = below + (label < 0).sum() - torch.cat([label.new_zeros(1), (label < 0).cumsum(0).double()])
        cut = torch.cat([value[:1] - 1, (value[:-1] + value[1:]) / 2, value[-1:] + 1])
        possible = torch.cat([value.new_ones(1).bool(), value[1:] > value[:-1], value.new_ones(1).bool()])
        for sign, count in ((1, wrong), (-1, len(y) - wrong)):
            place = int(torch.where(possible, count, np.inf).argmin())
            risk = float(count[place]) / len(y)
            if risk < best[3]:
                best = (column, float(cut[place]), sign, risk)
    return best


def _signs(y: Tensor) -> Tensor:
    wrong = ((y != 0) & (y != 1)).nonzero()
    if len(wrong):
        raise ValueError(f"y is {y[wrong[0, 0]].item()} in row {int(wrong[0, 0])}; classes are 0 and 1")
    return 2 * y - 1


def _hinge(signed: np.ndarray, ridge: float) -> np.ndarray:
    """The support vector machine's weights, by its dual: least |sum of a_n y_n x_n|^2 in a box, sum of a_n y_n = 0."""
    rows = len(signed)
    x, sign = signed[:, :-1], signed[:, -1]
    gram, ceiling = x @ x.T / ridge, np.full(rows, 1 / rows)
    found = optimize.minimize(
        lambda a: (a @ gram @ a / 2 - a.sum(), gram @ a - 1),
        np.zeros(rows),
        jac=True,
        method="SLSQP",
        bounds=[(0, top) for top in ceiling],
        constraints={"type": "eq", "fun": lambda a: a @ sign, "jac": lambda a: sign},
        options={"maxiter": 500, "ftol": 1e-12},
    ).x
    slope = x.T @ found / ridge
    # Given the slope, the best offset is where one of the rows has margin 1.
    offsets = sign * (1 - x @ slope)
    loss = np.maximum(0, 1 - (x @ slope)[None] - offsets[:, None] * sign[None]).mean(1)
    return np.append(slope, offsets[loss.argmin()])
