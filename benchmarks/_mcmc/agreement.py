"""Do a peer's model and the Pyro program have the same log density, up to a constant?"""

from typing import Any

import numpy as np
import torch

from benchmarks._mcmc.problem import Arrays, Problem
from inference.base import fresh, joint
from inference.density import Density

POINTS = 6


def disagreement(problem: Problem, sampler: str) -> float:
    """Return the largest difference of differences of log density over random points, relative to their spread.

    Both are log densities of the latent sites themselves, without any Jacobian.
    """
    points, ours = _pyro(problem)
    points = [problem.latents(values) for values in points]
    library = next(library for library in PEERS if library.lower() in sampler.lower())
    theirs = PEERS[library](problem, points)
    gaps = (theirs - theirs[0]) - (ours - ours[0])
    return float(np.abs(gaps).max() / np.abs(ours - ours[0]).max())


def _pyro(problem: Problem) -> tuple[list[Arrays], np.ndarray]:
    """Random values of the latent sites and their log density."""
    with fresh(problem.model, problem.args) as own:
        density = Density.of(joint(own, problem.args, {}), problem.args, jacobian=False)
        x = 0.3 * torch.randn(POINTS, density.dim, generator=torch.Generator().manual_seed(0))
        sites = density.constrain(x)
        latent = {site.name for site in density.layout.sites}
        points = [{k: v[i].numpy() for k, v in sites.items() if k in latent} for i in range(POINTS)]
        return points, np.array([float(density.log_prob(row)) for row in x])


def _numpyro(problem: Problem, points: list[Arrays]) -> np.ndarray:
    import numpyro

    from benchmarks._mcmc import numpyro_models

    numpyro.enable_x64()
    model = getattr(numpyro_models, problem.name)
    return np.array([float(numpyro.infer.util.log_density(model, (problem.data,), {}, p)[0]) for p in points])


def _pymc(problem: Problem, points: list[Arrays]) -> np.ndarray:
    import pymc

    from benchmarks._mcmc import pymc_models

    with pymc.Model() as model:
        getattr(pymc_models, problem.name)(problem.data)
    log_density = model.compile_logp(jacobian=False)

    def unconstrained(values: Arrays) -> Arrays:
        found = {}
        for site in model.free_RVs:
            transform, value = model.rvs_to_transforms[site], model.rvs_to_values[site]
            given = np.asarray(values[site.name])
            found[value.name] = transform.forward(given, *site.owner.inputs).eval() if transform else given
        return found

    return np.array([float(log_density(unconstrained(values))) for values in points])


def _stan(problem: Problem, points: list[Arrays]) -> np.ndarray:
    import stan

    from benchmarks._mcmc import stan_models

    data = stan_models.data_of(problem.name, problem.data)
    program = stan.build(stan_models.PROGRAMS[problem.name], data=data, random_seed=0)

    def log_density(values: Arrays) -> float:
        x: Any = program.unconstrain_pars({name: np.asarray(values[name]).tolist() for name in program.param_names})
        return program.log_prob(x, adjust_transform=False)

    return np.array([log_density(values) for values in points])


PEERS = {"NumPyro": _numpyro, "PyMC": _pymc, "Stan": _stan}
