"""The Gaussian of a model that has a way of its own to its only mode, and to the curvature there."""

import time
from typing import Any

import torch

from inference.base import Fit, fresh
from inference.optimum import own_way
from inference.psis import TRUSTED, psis, verdict


def by_its_own_way(model: Any, args: Any, kwargs: Any, seed: int, num_samples: int, tol: float) -> Fit | None:
    """Return the fit of a model that knows its peak (`HasPeak`); None of any other.

    In info, `khat` is that of the worst of the model's independent parts, whose own are `khats`.
    """
    began = time.perf_counter()
    with fresh(model, args, kwargs, seed=seed) as own:
        peak = own_way.peak(own, args, kwargs, curvature=True)
        if peak is None or peak.draw is None:
            return None
        generator = torch.Generator(next(iter(peak.theta.values())).device).manual_seed(seed)
        values, log_ratio = peak.draw(num_samples, generator)
        draws = {name: value[None] for name, value in values.items()}
        info = own_way.report(peak, tol, seed, began)
        if log_ratio.shape[-1] >= 25:
            khats = [psis(part)[1] for part in log_ratio]
            worst = max(khats)
            said = info["message"] if worst <= TRUSTED else f"{info['message']}; {verdict(worst)}"
            info |= {"khat": worst, "khats": khats, "message": said}
        info |= {"structure": "full", "linearised": False, "log_evidence": peak.log_evidence}
        info |= {"seconds": time.perf_counter() - began}
        return Fit(own, args, kwargs, "laplace", draws, {"log_density": torch.tensor([peak.log_density])}, info=info)
