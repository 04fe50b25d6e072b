"""How far a learned guide is from the posterior of a row: what one network for all rows costs, and what its family."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from pyro import poutine
from torch import Tensor

from inference import mcmc, svi
from inference.base import Fit, Unsupported, fresh
from inference.density import Density
from inference.psis import psis
from inference.svi import fixed
from inference.svi.guides import MeanField
from inference.tracing.learned import frozen, learned
from ppmodels.base import Data, HasGuide

PARTICLES = 128  # draws that stay, for the best independent normals of a row
VISITED = 6  # draws of the posterior that a climb starts from, for rows of several modes


@dataclass(frozen=True)
class Amortisation:
    """Gaps by row, nats, and the exact posterior that they were measured against.

    table: elbo, of the guide; best, of independent normals fitted to this row alone; log_evidence; and the gaps,
        amortisation = best - elbo, approximation = log_evidence - best. distance: the largest of the guide's means
        from the posterior's, in posterior sds. khat: of the evidence's importance weights.
    posterior: NUTS draws of the rows' latents, with what was learned held fast.
    """

    table: pd.DataFrame
    posterior: Fit


def amortisation(
    fit: Fit, rows: Sequence[int], *, seed: int = 0, num_samples: int = 4000, **options: Any
) -> Amortisation:
    """Compare the learned guide with the exact posterior of a few rows.

    rows: numbers of rows of the fit's data. num_samples: draws for each ELBO and evidence. options: of `mcmc.fit`.
    Raises: Unsupported for a fit without a guide by hand; ValueError for rows that there are not.
    """
    if not isinstance(fit.model, HasGuide) or fit.data is None:
        raise Unsupported("only a model with its own guide has an amortisation gap")
    if not rows or not all(0 <= row < fit.data.rows for row in rows):
        raise ValueError(f"rows are numbers from 0 to {fit.data.rows - 1}; got {list(rows)}")
    program, chosen = frozen(fit), _rows(fit.data, rows)
    exact = mcmc.fit(program, chosen, seed=seed, **options)
    sites = list(exact.draws)
    means, elbo = _guide(fit, chosen, sites, num_samples, seed)
    lines = []
    for place, row in enumerate(rows):
        alone = _rows(fit.data, [row])
        draws = torch.cat([exact.draws[s][:, :, place].flatten(0, 1).flatten(1) for s in sites], 1)  # (S, K)
        best = _best(program, alone, means[place], draws, num_samples, seed)
        evidence, khat = _evidence(program, alone, draws, num_samples, seed)
        apart = ((means[place] - draws.mean(0)) / draws.std(0)).abs().max()
        own = float(elbo[place])
        lines.append((own, best, evidence, best - own, evidence - best, float(apart), khat))
    names = ["elbo", "best", "log_evidence", "amortisation", "approximation", "distance", "khat"]
    return Amortisation(pd.DataFrame(lines, index=pd.Index(list(rows), name="row"), columns=names), exact)


def _rows(data: Data, rows: Sequence[int]) -> Data:
    """These rows as a data set of their own."""
    index = torch.as_tensor(list(rows))
    part = data.batch(index)
    return Data(len(index), part.given, part.observed, coords=data.coords)


def _guide(fit: Fit, data: Data, sites: list[str], num_samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """The guide's means by row, (rows, K), and its ELBO by row, (rows,)."""
    with fresh(fit.model, (data,), seed=seed) as own, learned(fit), torch.no_grad():
        nodes: Any = poutine.trace(own.guide).get_trace(data).nodes
        means = torch.cat([nodes[site]["fn"].mean.reshape(data.rows, -1) for site in sites], 1)
        log_ratio, _ = svi.ImportanceELBO(num_samples).log_ratio(frozen(fit), own.guide, (data,), {})
    return means, log_ratio.mean(0)


def _best(program: Any, data: Data, mean: Tensor, draws: Tensor, num_samples: int, seed: int) -> float:
    """The highest ELBO of independent normals: climbs from the guide's mean, the posterior's, and places it visits."""
    with fresh(None, (data,), seed=seed), torch.no_grad():
        density = Density.of(program, (data,), {})
        visited = draws[:: max(1, len(draws) // VISITED)][:VISITED]
        starts = torch.cat([mean[None], draws.mean(0, keepdim=True), visited]).to(draws)  # (R, K)
        noise = fixed.even(torch.randn(PARTICLES, density.dim)).expand(len(starts), -1, -1)
        batched = density.batched(len(starts) * PARTICLES, compile=False)
        found = fixed.climb(batched, noise, starts, num_steps=1000, tol=1e-6)
        phi = found.x[int(found.log_prob.nan_to_num(-math.inf).argmax())]
        z, log_q = MeanField(density.dim).draw(phi[None], torch.randn(1, num_samples, density.dim))
        log_p, _ = density.batched(num_samples, compile=False)(z[0])
        return float((log_p - log_q[0]).mean())


def _evidence(program: Any, data: Data, draws: Tensor, num_samples: int, seed: int) -> tuple[float, float]:
    """Importance weights from a normal with the posterior's mean and covariance, a little wider."""
    with fresh(None, (data,), seed=seed), torch.no_grad():
        density = Density.of(program, (data,), {})
        spread = torch.atleast_2d(draws.mT.cov()) * 1.3
        q = torch.distributions.MultivariateNormal(draws.mean(0), spread)
        z = q.sample(torch.Size([num_samples]))
        log_p, _ = density.batched(num_samples, compile=False)(z)
        log_ratio = log_p - q.log_prob(z)
    return float(log_ratio.logsumexp(0)) - math.log(num_samples), psis(log_ratio)[1]
