"""The mode of Bayesian logistic regression, by Newton's steps and by stochastic gradients, one row at a time."""

import torch
from torch import Tensor

from ppmodels.base import Data
from ppmodels.classification.logistic import LogisticRegression


def log_density(model: LogisticRegression, data: Data, coef: Tensor) -> Tensor:
    """Return log p(y | x, w) + log p(w), less the prior's constant, ()."""
    linear = _signed(model, data) @ coef  # (N,)
    return torch.nn.functional.logsigmoid(linear).sum() - coef.square().sum() / (2 * model.spread**2)


def gradient(model: LogisticRegression, data: Data, coef: Tensor) -> Tensor:
    """Return its derivative, (Q,): rows pull as hard as they are wrong, the prior back to zero."""
    signed = _signed(model, data)
    return signed.mT @ (-signed @ coef).sigmoid() - coef / model.spread**2


def precision(model: LogisticRegression, data: Data, coef: Tensor) -> Tensor:
    r"""Return minus its second derivative, (Q, Q).

    .. math:: X^\top \mathrm{diag}(\pi (1 - \pi)) X + s^{-2} I
    """
    design = model.design(data)
    share = (design @ coef).sigmoid()  # (N,)
    curvature = design.mT @ (design * (share * (1 - share))[:, None])
    return curvature + torch.eye(len(coef)).to(coef) / model.spread**2


def newton(model: LogisticRegression, data: Data, *, num_steps: int = 100, tol: float = 1e-12) -> Tensor:
    """Return the mode, (Q,): the prior makes it exist, also where a plane tells the classes apart.

    A step that would lower the density is halved.
    Raises: ValueError that names a bad row; ArithmeticError when num_steps are not enough.
    """
    model.check(data)
    coef = model.design(data).new_zeros(model.features + model.intercept)
    for _ in range(num_steps):
        slope = gradient(model, data, coef)
        step = torch.linalg.solve(precision(model, data, coef), slope)
        if slope @ step <= tol * len(coef):
            return coef + step
        here = log_density(model, data, coef)
        while log_density(model, data, coef + step) < here and step.abs().max() > 1e-300:
            step = step / 2
        coef = coef + step
    raise ArithmeticError(f"Newton's steps have not converged in {num_steps}")


def stochastic_gradient(
    model: LogisticRegression, data: Data, *, lr: float = 0.1, num_steps: int = 200, seed: int = 0
) -> Tensor:
    r"""Return the mode by passes over the rows in random order, with a weight decay that is the prior.

    .. math:: w \leftarrow w (1 - 2 c \eta) + \eta\, y_n x_n \sigma(-y_n w^\top x_n),
        \quad c = \frac{1}{2 s^2 N},\; y_n = \pm 1

    num_steps: passes. lr: eta of the first, which falls as 1 / (1 + pass), a Robbins and Monro sequence.
    Returns: the mean of w over the second half of the passes, (Q,), as Polyak and Juditsky take it.
    Source: Bottou (2010), Large-scale machine learning with stochastic gradient descent.
    """
    model.check(data)
    signed, generator = _signed(model, data), torch.Generator().manual_seed(seed)
    coef = signed.new_zeros(signed.shape[1])
    decay, mean, taken = 1 / (model.spread**2 * len(signed)), torch.zeros_like(coef), 0
    for step in range(num_steps):
        size = lr / (1 + step) ** 0.75
        for row in torch.randperm(len(signed), generator=generator).tolist():
            x = signed[row]
            coef = coef * (1 - decay * size) + size * x * (-(x @ coef)).sigmoid()
            if step >= num_steps // 2:
                taken += 1
                mean += (coef - mean) / taken
    return mean if taken else coef


def _signed(model: LogisticRegression, data: Data) -> Tensor:
    """Each row of features, with the sign of its class, (N, Q)."""
    design = model.design(data)
    return design * (2 * data.observed["y"].to(design) - 1)[:, None]
