"""The importance-weighted bound: several draws a row, each counted by how well it explains the row."""

import math
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor

from inference.base import Unsupported
from inference.svi.weighted import samples, traces


@dataclass
class ImportanceELBO:
    r"""A bound on log p(x) that rises with the number of draws, and touches it in the limit.

    .. math:: \sum_n E \log \frac1K \sum_k \frac{p(x_n, z_{nk})}{q(z_{nk} \mid x_n)}

    Every latent has a value a row; all K draws go through program and guide at once, in a plate outside.

    Source: Burda, Grosse and Salakhutdinov (2016), arXiv:1509.00519, equation 8.
    """

    num_particles: int = 5

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Return minus the bound, (), of all rows.

        Raises: Unsupported when a latent has one value for all rows.
        """
        log_ratio, scale = self.log_ratio(model, guide, args, kwargs)
        return -scale * (log_ratio.logsumexp(0) - math.log(self.num_particles)).sum()

    def log_ratio(self, model: Any, guide: Any, args: Any, kwargs: Any) -> tuple[Tensor, Any]:
        """Return log p(x, z) - log q(z) of each draw and row, (K, here), and what a row counts for."""
        outer = pyro.plate("particles", self.num_particles, dim=-2)
        p, q = traces(outer(model), outer(guide), args, kwargs)
        total, scale = torch.zeros(()), 1.0
        for trace, sign in ((p, 1), (q, -1)):
            for name, site in samples(trace):
                if site["log_prob"].shape[-1:] == () or not any(f.dim == -1 for f in site["cond_indep_stack"]):
                    raise Unsupported(f"site {name!r} has one value for all rows; importance weights are a row's own")
                scale = site["scale"]
                total = total + sign * site["unscaled_log_prob"]
        return total, scale
