"""The M step where it has no closed form: up the expected log density in unconstrained coordinates."""

from collections.abc import Callable, Mapping

import torch
from pyro.distributions import Distribution
from torch import Tensor
from torch.distributions import biject_to

from ppmodels.base import Theta


def ascend(
    objective: Callable[[Theta], Tensor], theta: Theta, priors: Mapping[str, Distribution], num_steps: int = 20
) -> Theta:
    """Return a theta of higher objective(theta), (), plus log prior: some steps of L-BFGS from theta, enough for EM."""
    transforms = {name: biject_to(priors[name].support) for name in theta}  # pyright: ignore[reportAttributeAccessIssue]
    free = {name: transforms[name].inv(value).detach().clone().requires_grad_() for name, value in theta.items()}
    climber = torch.optim.LBFGS(
        list(free.values()), max_iter=num_steps, tolerance_grad=1e-9, tolerance_change=1e-13, history_size=20,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def values() -> Theta:
        return {name: transforms[name](value) for name, value in free.items()}

    def loss() -> Tensor:
        climber.zero_grad()
        here = values()
        prior = sum(priors[name].log_prob(value).sum() for name, value in here.items())  # pyright: ignore
        value = -(objective(here) + prior)
        value.backward()
        return value

    with torch.enable_grad():
        climber.step(loss)
    return {name: value.detach() for name, value in values().items()}
