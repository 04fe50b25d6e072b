"""The samplers: each prepares a posterior once and returns what draws from it, again and again.

`prepare(problem)` returns `draw(seed)`, which returns draws by site, each (chain, draw, *site), and the number
of divergences. What `prepare` and the first call of `draw` take beyond the second call is the cold start.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks._mcmc.problem import Problem

Draw = Callable[[int], tuple[dict[str, np.ndarray], int]]

PYRO = 200  # warm-up and draws of the run that stands for a longer one of Pyro's
MANY = 64


def ours(problem: Problem, chains: int | None = None) -> Draw:
    """This project: default settings, apart from the number of chains where one is given."""
    from inference import mcmc

    def draw(seed: int) -> Any:
        fit = mcmc.fit(problem.model, *problem.args, seed=seed, num_chains=chains)
        draws = {site: value.numpy() for site, value in fit.draws.items()}
        return draws, int(fit.stats["diverging"].sum())

    return draw


def pyro(problem: Problem) -> Draw:
    """Pyro's NUTS, one chain, short: its rate is that of a longer run of the same make-up."""
    import pyro
    import torch
    from pyro.infer import MCMC, NUTS

    from inference.base import joint

    torch.set_default_dtype(torch.float64)
    program = joint(problem.model, problem.args, {})

    def draw(seed: int) -> Any:
        pyro.set_rng_seed(seed)
        run = MCMC(NUTS(program), num_samples=PYRO, warmup_steps=PYRO, disable_progbar=True)
        run.run(*problem.args)
        draws = {site: value[None].numpy() for site, value in run.get_samples().items()}
        return draws, sum(len(places) for places in run.diagnostics()["divergences"].values())

    return draw


def numpyro(problem: Problem, chains: int = 4, method: str = "sequential", draws: int = 1000) -> Draw:
    """NumPyro's NUTS: as many warm-up steps as draws."""
    import jax
    import numpyro

    from benchmarks._mcmc import numpyro_models

    numpyro.enable_x64()
    constant = {key: value for key, value in problem.data.items() if not isinstance(value, np.ndarray)}
    arrays = {key: jax.numpy.asarray(value) for key, value in problem.data.items() if key not in constant}

    def model(*given: Any) -> None:
        getattr(numpyro_models, problem.name)(dict(zip(arrays, given, strict=True)) | constant)

    kernel = numpyro.infer.NUTS(model)
    options: Any = {"num_chains": chains, "chain_method": method, "progress_bar": False}

    @jax.jit  # of the whole run: `MCMC` by itself compiles its loop anew in every run
    def run(key: Any, given: Any) -> Any:
        whole = numpyro.infer.MCMC(kernel, num_warmup=draws, num_samples=draws, **options)
        whole.run(key, *given)
        return whole.get_samples(group_by_chain=True), whole.get_extra_fields()["diverging"].sum()

    def draw(seed: int) -> Any:
        found, diverging = jax.device_get(run(jax.random.PRNGKey(seed), tuple(arrays.values())))
        return found, int(diverging)

    return draw


def nutpie(problem: Problem) -> Draw:
    """PyMC's model by nutpie, its default numbers of warm-up steps and draws."""
    import nutpie
    import pymc

    from benchmarks._mcmc import pymc_models

    with pymc.Model() as model:
        getattr(pymc_models, problem.name)(problem.data)
    compiled = nutpie.compile_pymc_model(model)

    def draw(seed: int) -> Any:
        run = nutpie.sample(compiled, chains=4, cores=1, seed=seed, progress_bar=False)
        draws = {site: np.asarray(value) for site, value in run.posterior.data_vars.items()}
        return draws, int(run.sample_stats["diverging"].sum())

    return draw


def stan(problem: Problem) -> Draw:
    """Stan's NUTS, 1000 warm-up steps and draws: its chains are processes of their own."""
    import stan

    from benchmarks._mcmc import stan_models

    data = stan_models.data_of(problem.name, problem.data)
    program = stan.build(stan_models.PROGRAMS[problem.name], data=data, random_seed=0)
    calls = itertools.count()

    def draw(seed: int) -> Any:
        asked = next(calls)  # a fit asked for again would be read from disk; this option changes nothing else
        run = program.sample(num_chains=4, refresh=100 + asked)
        draws = {}
        for site, shape in zip(program.param_names, program.dims, strict=True):
            value = np.reshape(run[site], (*shape, -1, 4))  # chains take turns in the last axis
            draws[site] = np.moveaxis(value, (-1, -2), (0, 1))
        return draws, int(run["divergent__"].sum())

    return draw


OURS, OURS_4 = "ours", "ours, 4 chains"
SAMPLERS: dict[str, Callable[[Problem], Draw]] = {
    OURS: ours,
    OURS_4: partial(ours, chains=4),
    "Pyro NUTS": pyro,
    "NumPyro, 4 sequential": numpyro,
    "NumPyro, 4 vectorised": partial(numpyro, method="vectorized"),
    "NumPyro, 64 vectorised": partial(numpyro, chains=MANY, method="vectorized", draws=300),
    "PyMC by nutpie, 4": nutpie,
    "Stan by pystan, 4": stan,
}

MODULES = {  # what a sampler needs, imported before the clock starts
    OURS: ["inference.mcmc"],
    OURS_4: ["inference.mcmc"],
    "Pyro NUTS": ["pyro.infer"],
    "NumPyro, 4 sequential": ["numpyro"],
    "NumPyro, 4 vectorised": ["numpyro"],
    "NumPyro, 64 vectorised": ["numpyro"],
    "PyMC by nutpie, 4": ["pymc", "nutpie"],
    "Stan by pystan, 4": ["stan"],
}
NOTHING_TO_COMPILE = ["Pyro NUTS"]  # once is enough: the first fit is as fast as the second
