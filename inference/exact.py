"""Draws from the exact posterior, for models that know it by conjugacy."""

import time
from typing import Any

from torch import Tensor
from torch.distributions import Distribution

from inference.base import Fit, Unsupported, check_data, fresh
from ppmodels.base import HasEvidence, HasPosterior


def fit(model: Any, *args: Any, seed: int = 0, num_samples: int = 1000, **kwargs: Any) -> Fit:
    """Draw independently from the model's own posterior; the draws are chain 1.

    Returns: a Fit; its `info` has `log_evidence`, log p(observed | given), when the model knows it.
    Raises: Unsupported when the model has no exact posterior.
    """
    began = time.perf_counter()
    if not isinstance(model, HasPosterior):
        name = getattr(model, "__name__", type(model).__name__)
        raise Unsupported(f"{name} has no posterior in closed form; exact needs one")
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1; it is {num_samples}")
    with fresh(model, args, kwargs, seed=seed) as own:
        check_data(own, args, kwargs)
        draws: dict[str, Tensor] = {}
        for name, site in own.posterior(args[0]).items():
            if isinstance(site, Distribution):
                draws[name] = site.sample((1, num_samples))
            else:  # a function of the sites before it
                draws[name] = site(draws).sample()
        info: dict[str, Any] = {"seed": seed, "converged": True, "message": "exact"}
        if isinstance(own, HasEvidence):
            info["log_evidence"] = float(own.log_evidence(args[0]))
        info["seconds"] = time.perf_counter() - began
        return Fit(own, args, kwargs, "exact", draws, info=info)
