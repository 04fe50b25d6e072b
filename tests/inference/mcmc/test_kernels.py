"""What every kernel must do, whatever it is called: keep the target, reproduce, and find known moments."""

import math
from types import SimpleNamespace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

from inference import mcmc
from inference.base import fresh
from inference.density import Density
from inference.mcmc import kernels
from inference.mcmc.chains import Chains, Tuned, leapfrog
from inference.mcmc.mams import isokinetic
from inference.mcmc.metric import Metric

KERNELS = ["hmc", "nuts", "mams"]
COVARIANCE = torch.tensor([[1.0, 0.8, 0.0], [0.8, 2.0, -0.5], [0.0, -0.5, 0.5]], dtype=torch.float64)
CHAINS = 4096


def gaussian():
    pyro.sample("x", dist.MultivariateNormal(torch.ones(3), COVARIANCE))


def tilted_quartic(x):
    """Log density of one coordinate: two unequal shoulders, tails lighter than a Gaussian's."""
    return -0.25 * x**4 + 0.8 * x**2 + 0.5 * x


def quartic():
    x = pyro.sample("x", dist.Normal(0.0, 1.0).mask(False))
    pyro.factor("p", tilted_quartic(x))


def quartic_and_normal():
    quartic()
    pyro.sample("y", dist.Normal(0.0, 1.0))


def quartic_cdf():
    grid = np.linspace(-6, 6, 200_001)
    p = np.exp(tilted_quartic(grid))
    cdf = np.concatenate([[0.0], np.cumsum(0.5 * (p[1:] + p[:-1]))])
    return grid, cdf / cdf[-1]


def banana():
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(x**2, 0.5))


def settle(program, chains):
    with fresh(program):
        return Density.of(program).batched(chains, compile=False)


def moved(kernel, program, x, factor, step_size, turns, seed=0, length=1.5):
    """Chains from x, (C, dim), after so many transitions, with the statistics of the last."""
    batched = settle(program, len(x))
    transition = kernels.make(
        SimpleNamespace(kernel=kernel, max_tree_depth=8), batched, torch.Generator().manual_seed(seed)
    )
    x = x.mT.contiguous().mT
    chains, found = Chains(x, *batched.once(x)), {}
    for turn in range(turns):
        chains, found = transition(chains, Tuned(step_size, length, Metric(factor)), turn)
    return chains, found


def assert_law(x, cdf):
    assert stats.kstest(x.numpy(), cdf).pvalue > 1e-3


@pytest.mark.parametrize("metric", ["diagonal", "dense"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_exact_draws_of_a_gaussian_stay_exact(kernel, metric):
    z = torch.randn(CHAINS, 3, generator=torch.Generator().manual_seed(11), dtype=torch.float64)
    x = 1.0 + z @ torch.linalg.cholesky(COVARIANCE).mT
    dense = torch.tensor([[1.0, 0.0, 0.0], [0.3, 1.2, 0.0], [-0.2, 0.4, 0.9]], dtype=torch.float64)
    factor = dense if metric == "dense" else torch.tensor([1.0, 1.5, 0.6], dtype=torch.float64)
    chains, found = moved(kernel, gaussian, x, factor, 0.7, 2)
    assert 0.5 < found["acceptance_rate"].mean() < 0.97  # large steps: a wrong acceptance would show
    assert float((chains.x == x).all(1).double().mean()) < 0.3
    for i in range(3):
        assert_law(chains.x[:, i], stats.norm(1.0, math.sqrt(COVARIANCE[i, i])).cdf)
    centred = chains.x - 1.0
    assert_law((centred @ torch.linalg.inv(COVARIANCE) * centred).sum(1), stats.chi2(3).cdf)
    assert_law(centred[:, 0] - centred[:, 1], stats.norm(0.0, math.sqrt(1.4)).cdf)


@pytest.mark.parametrize("kernel", KERNELS)
def test_exact_draws_of_a_two_humped_density_stay_exact(kernel):
    grid, cdf = quartic_cdf()
    generator = torch.Generator().manual_seed(12)
    u = torch.rand(CHAINS, generator=generator, dtype=torch.float64)
    x = torch.tensor(np.interp(u.numpy(), cdf, grid))[:, None]
    program, factor = quartic, torch.ones(1, dtype=torch.float64)
    if kernel == "mams":  # needs a second coordinate
        program, factor = quartic_and_normal, torch.ones(2, dtype=torch.float64)
        x = torch.cat([x, torch.randn(CHAINS, 1, generator=generator, dtype=torch.float64)], 1)
    for turns in (1, 3):
        chains, found = moved(kernel, program, x, factor, 0.6, turns)
        assert 0.5 < found["acceptance_rate"].mean() < 0.97
        assert_law(chains.x[:, 0], lambda v: np.interp(v, grid, cdf))


@pytest.mark.parametrize("kernel", KERNELS)
def test_statistics_are_of_the_draw(kernel):
    x = torch.randn(32, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    chains, found = moved(kernel, gaussian, x, torch.ones(3, dtype=torch.float64), 0.5, 3)
    batched = settle(gaussian, 32)
    log_prob, grad = batched.once(chains.x)
    torch.testing.assert_close(found["lp"], log_prob)
    torch.testing.assert_close(chains.log_prob, log_prob)
    torch.testing.assert_close(chains.grad, grad)
    names = "lp energy energy_error acceptance_rate diverging n_steps tree_depth reached_max_treedepth step_size"
    assert set(found) == set(names.split())
    assert all(value.shape == (32,) for value in found.values())
    assert chains.x.stride() == (1, 32)


def test_hmc_and_nuts_keep_the_chi_square_of_the_energy():
    x = torch.randn(CHAINS, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x = 1.0 + x @ torch.linalg.cholesky(COVARIANCE).mT
    constant = 0.5 * math.log((2 * math.pi) ** 3 * float(torch.det(COVARIANCE)))
    for kernel in ("hmc", "nuts"):
        _, found = moved(kernel, gaussian, x, torch.ones(3, dtype=torch.float64), 0.1, 1)
        assert_law(2 * (found["energy"] - constant), stats.chi2(6).cdf)  # |z|^2 + |n|^2


def hamiltonian_path(batched, x, n, step_size, steps):
    log_prob, whitened = batched.once(x)
    before, step = 0.5 * n.square().sum(1) - log_prob, torch.full((len(x), 1), step_size, dtype=x.dtype)
    for _ in range(steps):
        x, n, whitened, _, log_prob = leapfrog(batched.once, x, n, whitened, step, torch.ones(2, dtype=x.dtype))
    return x, n, 0.5 * n.square().sum(1) - log_prob - before


def isokinetic_path(batched, x, v, step_size, steps):
    v = v / v.norm(dim=1, keepdim=True)
    before, whitened = batched.once(x)
    work, step, log_prob = torch.zeros_like(before), torch.full((len(x), 1), step_size, dtype=x.dtype), before
    for _ in range(steps):
        x, v, whitened, work, _, log_prob = isokinetic(
            batched.once, x, v, whitened, work, step, torch.ones(2, dtype=x.dtype)
        )
    return x, v, work - log_prob + before


@pytest.mark.parametrize("path", [hamiltonian_path, isokinetic_path])
def test_trajectories_are_reversible_and_of_second_order(path):
    generator, batched = torch.Generator().manual_seed(5), settle(banana, 50)
    z, n = (torch.randn(2, 50, generator=generator, dtype=torch.float64).mT for _ in range(2))
    x = torch.stack([z[:, 0], z[:, 0] ** 2 + 0.5 * z[:, 1]], 1)  # where the mass is: forces are moderate
    there, last, error = path(batched, x, n, 0.05, 20)
    back, first, undone = path(batched, there, -last, 0.05, 20)
    start = n if path is hamiltonian_path else n / n.norm(dim=1, keepdim=True)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-9)
    torch.testing.assert_close(first, -start, rtol=0, atol=1e-9)
    torch.testing.assert_close(undone, -error, rtol=0, atol=1e-9)
    errors = [path(batched, x, n, 0.02 / k, 40 * k)[2].abs().mean() for k in (1, 2, 4)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.05)


def ill_conditioned():
    """Ten coordinates, covariance of condition number 1e4 in a random basis."""
    basis = torch.linalg.qr(torch.randn(10, 10, generator=torch.Generator().manual_seed(9), dtype=torch.float64)).Q
    return basis * torch.logspace(-2, 2, 10, dtype=torch.float64) @ basis.mT


@pytest.mark.parametrize("kernel", [*KERNELS, "chees"])
def test_moments_of_an_ill_conditioned_gaussian(kernel):
    covariance = ill_conditioned()

    def program(covariance):
        pyro.sample("x", dist.MultivariateNormal(torch.zeros(10), covariance))

    fit = mcmc.fit(program, covariance, kernel=kernel, num_chains=64, num_samples=150, compile=False, seed=2)
    x = fit.draws["x"].flatten(0, 1)
    z = torch.linalg.solve(torch.linalg.cholesky(covariance), x.mT)  # (10, draws)
    assert z.mean(1).abs().max() < 0.06
    assert (torch.cov(z) - torch.eye(10)).abs().max() < 0.09
    assert not fit.stats["diverging"].any()


@pytest.mark.parametrize("kernel", [*KERNELS, "chees"])
def test_a_seed_decides_the_draws(kernel):
    options = {"kernel": kernel, "num_chains": 4, "num_warmup": 30, "num_samples": 20, "compile": False}
    one, same, other = (mcmc.fit(banana, seed=seed, **options) for seed in (1, 1, 2))
    assert torch.equal(one.draws["x"], same.draws["x"])
    assert all(torch.equal(value, same.stats[name]) for name, value in one.stats.items())
    assert not torch.equal(one.draws["x"], other.draws["x"])


@pytest.mark.parametrize("kernel", [*KERNELS, "chees"])
def test_a_longer_run_begins_like_a_shorter_one_and_counts_its_gradients(kernel):
    options = {"kernel": kernel, "num_chains": 4, "num_warmup": 30, "compile": False, "seed": 1}
    whole, part = (mcmc.fit(gaussian, num_samples=number, **options) for number in (20, 8))
    assert whole.info["halved"] == 0, "a longer run may forget draws that a shorter one keeps, where steps diverge"
    assert torch.equal(whole.draws["x"], part.extend(12).draws["x"])
    spent = whole.info["gradients"] - part.info["gradients"]
    assert spent == int(whole.stats["n_steps"][:, 8:].sum())


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [*KERNELS, "chees"])
def test_the_compiler_changes_no_draw(kernel):
    options = {"kernel": kernel, "num_chains": 4, "num_warmup": 10, "num_samples": 10, "seed": 1}
    compiled, replayed = (mcmc.fit(banana, compile=compile, **options) for compile in (True, False))
    assert compiled.info["executor"] == "inductor"
    torch.testing.assert_close(compiled.draws["x"], replayed.draws["x"], rtol=1e-6, atol=1e-6)
    assert torch.equal(compiled.stats["n_steps"], replayed.stats["n_steps"])
