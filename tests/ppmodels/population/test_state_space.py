"""Linear dynamical systems: against the dense joint Gaussian, the filter at its fixed point, EM against the truth."""

import math
from dataclasses import replace

import pytest
import torch
from scipy.linalg import solve_discrete_are

from inference import em
from inference.predict import simulate
from ppmodels.base import Data
from ppmodels.population._readings import Readings
from ppmodels.population._smoothing import smooth
from ppmodels.population._system_maximise import Expected
from ppmodels.population._system_sites import system_of, theta_of
from ppmodels.population.block_toeplitz import BlockToeplitz
from ppmodels.population.block_tridiagonal import BlockTridiagonal
from ppmodels.population.block_tridiagonal import dense as whole_matrix
from ppmodels.population.kalman import kalman_filter, rts_smoother
from ppmodels.population.linear_system import LinearSystem
from ppmodels.population.state_space import GaussianStateSpace
from ppmodels.population.trials import stack

F64 = torch.float64


def positive(generator, size):
    root = torch.randn(size, size, generator=generator, dtype=F64)
    return root @ root.mT / size + 0.3 * torch.eye(size, dtype=F64)


def random_system(latents=3, neurons=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(latents, latents, generator=g, dtype=F64))[0]
    return LinearSystem(
        0.9 * turn,
        positive(g, latents),
        torch.randn(latents, generator=g, dtype=F64),
        positive(g, latents),
        torch.randn(neurons, latents, generator=g, dtype=F64),
        torch.randn(neurons, generator=g, dtype=F64),
        torch.rand(neurons, generator=g, dtype=F64) + 0.2,
    )


def simulated(system, trials, bins, seed=0):
    torch.manual_seed(seed)
    mean = system.sample_path(bins, torch.Size([trials])) @ system.loading.mT + system.offset
    return mean + system.noise.sqrt() * torch.randn_like(mean)


def dense(system, y):
    """The joint Gaussian of path and spikes of one trial, written out: log p(y), path mean and covariance."""
    bins, p = len(y), system.latents
    mean, cov, means, covs = system.initial_loc, system.initial_cov, [], torch.zeros(bins, bins, p, p, dtype=F64)
    for t in range(bins):
        means.append(mean)
        covs[t, t] = cov
        for later in range(t + 1, bins):
            covs[later, t] = system.dynamics @ covs[later - 1, t]
            covs[t, later] = covs[later, t].mT
        mean, cov = system.dynamics @ mean, system.dynamics @ cov @ system.dynamics.mT + system.innovation
    prior = covs.permute(0, 2, 1, 3).reshape(bins * p, bins * p)
    loc = torch.cat(means)
    readout = torch.block_diag(*[system.loading] * bins)
    seen = ~y.reshape(-1).isnan()
    readout, noise = readout[seen], system.noise.repeat(bins)[seen]
    residual = y.reshape(-1)[seen] - readout @ loc - system.offset.repeat(bins)[seen]
    spread = readout @ prior @ readout.mT + torch.diag(noise)
    gain = torch.linalg.solve(spread, readout @ prior).mT
    log_p = torch.distributions.MultivariateNormal(torch.zeros(len(residual), dtype=F64), spread).log_prob(residual)
    posterior = prior - gain @ readout @ prior
    return log_p, (loc + gain @ residual).reshape(bins, p), posterior.reshape(bins, p, bins, p).transpose(1, 2)


@pytest.mark.parametrize("dense", [0, 9, 64], ids=["halved to the end", "three blocks left", "one matrix"])
@pytest.mark.parametrize("bins", [1, 2, 3, 7, 8, 13])
def test_block_tridiagonal_solves_inverts_and_measures(bins, dense, monkeypatch):
    monkeypatch.setattr("ppmodels.population.block_tridiagonal.DENSE", dense)
    g = torch.Generator().manual_seed(bins)
    size = 3 * bins
    matrix = torch.randn(2, size, size, generator=g, dtype=F64)
    matrix = matrix @ matrix.mT + 5 * size * torch.eye(size, dtype=F64)
    blocks = matrix.reshape(2, bins, 3, bins, 3).transpose(2, 3)
    far = (torch.arange(bins)[:, None] - torch.arange(bins)).abs() > 1
    blocks = torch.where(far[None, :, :, None, None], 0.0, blocks)
    matrix = blocks.transpose(2, 3).reshape(2, size, size)
    diagonal = torch.stack([blocks[:, t, t] for t in range(bins)], 1)
    below = torch.stack([blocks[:, t + 1, t] for t in range(bins - 1)], 1) if bins > 1 else diagonal[:, :0]
    factored = BlockTridiagonal.factor(diagonal, below)
    right = torch.randn(2, bins, 3, 4, generator=g, dtype=F64)
    exact = torch.linalg.solve(matrix, right.reshape(2, size, 4)).reshape(right.shape)
    torch.testing.assert_close(factored.solve(right), exact, rtol=0, atol=1e-12)
    torch.testing.assert_close(factored.log_det, torch.logdet(matrix), rtol=1e-12, atol=0)
    inverse = torch.linalg.inv(matrix).reshape(2, bins, 3, bins, 3).transpose(2, 3)
    own, step = factored.covariance()
    for t in range(bins):
        torch.testing.assert_close(own[:, t], inverse[:, t, t], rtol=0, atol=1e-13)
        if t:
            torch.testing.assert_close(step[:, t - 1], inverse[:, t, t - 1], rtol=0, atol=1e-13)


@pytest.mark.parametrize("bins", [1, 2, 3, 22, 23, 40, 101])
def test_alike_blocks_solve_invert_and_measure_as_any_others(bins):
    g = torch.Generator().manual_seed(bins)
    first, inner, last = (positive(g, 3) + size * torch.eye(3, dtype=F64) for size in (8, 5, 6))
    below = torch.randn(3, 3, generator=g, dtype=F64)
    factored = BlockToeplitz.factor(first, inner, last, below, bins)
    assert (factored.stretches > 0) == (bins > 21)
    diagonal = torch.stack([first, *[inner] * (bins - 2), last][:bins])
    matrix = whole_matrix(diagonal, below.expand(bins - 1, -1, -1))
    inverse = torch.linalg.inv(matrix)
    torch.testing.assert_close(factored.log_det, torch.logdet(matrix), rtol=1e-12, atol=0)
    right = torch.randn(4, bins, 3, generator=g, dtype=F64)
    torch.testing.assert_close(factored.solve(right), (right.flatten(1) @ inverse).view_as(right), rtol=0, atol=1e-13)
    own, step = factored.covariance()
    blocks = inverse.reshape(bins, 3, bins, 3).transpose(1, 2)
    torch.testing.assert_close(own, torch.stack([blocks[t, t] for t in range(bins)]), rtol=0, atol=1e-13)
    lag = torch.stack([blocks[t + 1, t] for t in range(bins - 1)]) if bins > 1 else own[:0]
    torch.testing.assert_close(step, lag, rtol=0, atol=1e-13)
    spread = factored.spread()
    for found, exact in zip(
        (spread.whole, spread.step, spread.first, spread.last), (own.sum(0), lag.sum(0), own[0], own[-1]), strict=True
    ):
        torch.testing.assert_close(found, exact, rtol=0, atol=1e-12)


def test_long_trials_are_smoothed_as_by_the_recursion():
    system = random_system(seed=2)
    y = simulated(system, 2, 150, seed=2)
    recursive, blocks = rts_smoother(system, y), smooth(system, Readings.of(y, False)).moments()
    for name in ("mean", "log_likelihood"):
        torch.testing.assert_close(getattr(blocks, name), getattr(recursive, name), rtol=0, atol=1e-8)
    for name in ("cov", "lag_one"):
        torch.testing.assert_close(getattr(blocks, name)[0], getattr(recursive, name)[1], rtol=0, atol=1e-8)


@pytest.mark.parametrize("gaps", [False, True])
def test_a_far_off_mean_costs_no_digits(gaps):
    system = random_system()
    y = simulated(system, 3, 30)
    far = replace(system, offset=system.offset + 1e6)
    if gaps:
        y[1, 4:9], y[2, 20:] = torch.nan, torch.nan
    near, away = (smooth(s, Readings.of(v, gaps)) for s, v in ((system, y), (far, y + 1e6)))
    torch.testing.assert_close(away.log_likelihood, near.log_likelihood, rtol=0, atol=1e-6)
    found, other = (Expected.of({}, posterior).readout.maximise() for posterior in (near, away))
    torch.testing.assert_close(other[2], found[2], rtol=1e-7, atol=0)


def test_kept_sums_are_those_of_the_values_as_they_are():
    y = simulated(random_system(), 3, 12)
    before = Readings.kept(y, False).sums
    assert Readings.kept(y, False).sums is before
    y[1, 3] += 1
    torch.testing.assert_close(Readings.kept(y, False).sums.square, Readings.of(y, False).sums.square, rtol=0, atol=0)
    assert not torch.equal(Readings.kept(y, False).sums.square, before.square)


@pytest.mark.parametrize("gaps", [False, True])
def test_filter_smoother_and_block_form_are_the_dense_gaussian(gaps):
    system, bins = random_system(), 20
    y = simulated(system, 3, bins)
    if gaps:
        y[torch.rand(y.shape, generator=torch.Generator().manual_seed(1)) < 0.2] = torch.nan
        y[0, 12:], y[1, 3] = torch.nan, torch.nan
    recursive, blocks = rts_smoother(system, y), smooth(system, Readings.of(y, gaps)).moments()
    filtered = kalman_filter(system, y)
    for trial in range(3):
        end = 12 if gaps and trial == 0 else bins  # what comes after a trial's end is no part of it
        log_p, mean, cov = dense(system, y[trial, :end])
        lag = torch.stack([cov[t + 1, t] for t in range(end - 1)])
        for found in (recursive, blocks):
            row = trial if len(found.cov) > 1 else 0
            torch.testing.assert_close(found.log_likelihood[trial], log_p, rtol=0, atol=1e-8)
            torch.testing.assert_close(found.mean[trial, :end], mean, rtol=0, atol=1e-8)
            own = torch.stack([cov[t, t] for t in range(end)])
            torch.testing.assert_close(found.cov[row, :end], own, rtol=0, atol=1e-8)
            torch.testing.assert_close(found.lag_one[row, : end - 1], lag, rtol=0, atol=1e-8)
        half = dense(system, y[trial, : end // 2])
        torch.testing.assert_close(filtered.mean[trial, end // 2 - 1], half[1][-1], rtol=0, atol=1e-8)


def test_what_is_not_positive_definite_is_named_by_its_step():
    system, y = random_system(), simulated(random_system(), 3, 40)
    flat = replace(system, innovation=torch.ones(3, 3, dtype=F64))  # of rank one
    with pytest.raises(ArithmeticError, match=r"^smoothing: V_0 or Q is not positive definite; take fewer latents"):
        smooth(flat, Readings.of(y, False))
    with pytest.raises(ArithmeticError, match=r"^canonical form: Q is not positive definite"):
        flat.canonical()
    negative = replace(system, noise=-system.noise)
    with pytest.raises(ArithmeticError, match=r"^smoothing: the precision of a path is not positive definite"):
        smooth(negative, Readings.of(y, False))
    with pytest.raises(ArithmeticError, match=r"^filtering, bin 0: the covariance of y given the bins before is not"):
        kalman_filter(negative, y)


def test_the_filter_settles_at_the_riccati_solution():
    system = random_system(seed=3)
    found = kalman_filter(system, simulated(system, 1, 200)).predicted_cov[0, -1]
    fixed = solve_discrete_are(
        system.dynamics.mT.numpy(),
        system.loading.mT.numpy(),
        system.innovation.numpy(),
        torch.diag(system.noise).numpy(),
    )
    torch.testing.assert_close(found, torch.tensor(fixed), rtol=0, atol=1e-9)


def test_the_canonical_form_is_the_same_system():
    system, y = random_system(), simulated(random_system(), 4, 15)
    form = system.canonical()
    torch.testing.assert_close(form.innovation, torch.eye(3, dtype=F64))
    assert bool((form.loading.triu(1) == 0).all())
    assert bool((form.loading.diagonal() > 0).all())
    torch.testing.assert_close(
        smooth(form, Readings.of(y, False)).log_likelihood, smooth(system, Readings.of(y, False)).log_likelihood
    )
    model = GaussianStateSpace(neurons=5, latents=3, bins=15)
    again = system_of(model, theta_of(model, form))
    torch.testing.assert_close(
        smooth(again, Readings.of(y, False)).log_likelihood, smooth(system, Readings.of(y, False)).log_likelihood
    )


def test_the_stationary_covariance_is_one():
    system = random_system()
    cov = system.stationary_cov()
    torch.testing.assert_close(system.dynamics @ cov @ system.dynamics.mT + system.innovation, cov)
    grown = LinearSystem(1.2 * torch.eye(3, dtype=F64), *[system.innovation] * 3, system.loading, system.offset)
    with pytest.raises(ValueError, match=r"grow without bound: their largest eigenvalue is 1\.2"):
        grown.stationary_cov()


@pytest.fixture(scope="module")
def population():
    """A rotating system of two latents in 8 neurons, 60 trials of 40 bins."""
    angle = 0.3
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=F64)
    g = torch.Generator().manual_seed(5)
    eye = torch.eye(2, dtype=F64)
    loading = 0.7 * torch.randn(8, 2, generator=g, dtype=F64)
    system = LinearSystem(
        0.95 * turn,
        eye,
        torch.ones(2, dtype=F64),
        eye,
        loading,
        torch.zeros(8, dtype=F64),
        torch.full((8,), 0.5, dtype=F64),
    )
    return system, simulated(system, 60, 40, seed=5)


def angle_between(one, other):
    """The largest angle between two column spaces, in degrees."""
    cosines = torch.linalg.svdvals(torch.linalg.qr(one)[0].mT @ torch.linalg.qr(other)[0])
    return math.degrees(math.acos(min(1.0, float(cosines.min()))))


def test_em_climbs_and_finds_the_system(population):
    system, y = population
    model = GaussianStateSpace.for_data(y, latents=2)
    data = Data.of(model, y=y)
    plain = em.fit(model, data, num_restarts=1, num_steps=60, accelerate=False)
    assert float(plain.trace["log_likelihood"].diff().min()) > -1e-8
    fit = em.fit(model, data, num_restarts=2, tol=1e-8)
    assert fit.info["converged"]
    assert fit.trace["log_likelihood"][-1] > smooth(system, Readings.of(y, False)).log_likelihood.sum()
    bound = fit.trace["bound"]
    assert bool((bound <= fit.trace["log_likelihood"] + 1e-6).all())
    theta = {name: value[0, 0] for name, value in fit.draws.items()}
    found = system_of(model, theta)
    order = [torch.view_as_real(torch.linalg.eigvals(s.dynamics)).sort(0).values for s in (found, system)]
    torch.testing.assert_close(*order, rtol=0, atol=0.05)
    assert angle_between(found.loading, system.loading) < 10
    mean = model.path(theta, data).mean
    assert mean.shape == (60, 40, 2)


def test_the_e_step_bound_is_tight_and_the_m_step_a_stationary_point(population, double_precision):
    _, y = population
    model = GaussianStateSpace.for_data(y[:20], latents=2)
    data = Data.of(model, y=y[:20])
    theta = model.start(data)
    q, value = model.e_step(theta, data)
    torch.testing.assert_close(model.bound(q, theta, data), value, rtol=1e-12, atol=0)
    a, innovation, mean, cov = q.path.maximise("free")
    best = LinearSystem(a, innovation, mean, cov, *q.readout.maximise())
    free = [x.clone().requires_grad_() for x in (a, innovation, mean, cov, best.loading, best.offset, best.noise)]
    there = LinearSystem(*free)
    total = q.path.expected_log_prob(there) + q.readout.expected_log_prob(there)
    for grad in torch.autograd.grad(total, free):
        assert float(grad.abs().max()) < 1e-6
    assert model.e_step(model.m_step(q, data, prior=False), data)[1] > value


def test_trials_of_different_length_and_missing_bins(population):
    _, y = population
    trials = [trial[: 40 - k % 7] for k, trial in enumerate(y[:30])]
    stacked, coords = stack(trials, bin_size=0.02)
    assert coords["time"][:3] == [0.0, 0.02, 0.04]
    stacked[3, 5:8, 2] = torch.nan
    model = GaussianStateSpace.for_data(stacked, latents=2)
    assert model.gaps
    data = Data.of(model, y=stacked, coords=coords)
    fit = em.fit(model, data, num_restarts=1, num_steps=40, accelerate=False)
    assert float(fit.trace["log_likelihood"].diff().min()) > -1e-8
    theta = {name: value[0, 0] for name, value in fit.draws.items()}
    whole = sum(dense(system_of(model, theta), trial[: len(trials[k])])[0] for k, trial in enumerate(stacked))
    torch.testing.assert_close(fit.trace["log_likelihood"][-1], whole, rtol=1e-10, atol=0)


def test_few_trials_take_a_tied_start():
    model = GaussianStateSpace(neurons=4, latents=2, bins=8)
    data, _ = simulate(model, 2, seed=1)
    with pytest.raises(ValueError, match="2 trials cannot tell V_0 of 2 latents; say initial='innovation'"):
        em.fit(model, data)
    tied = GaussianStateSpace(neurons=4, latents=2, bins=200, initial="innovation")
    data, _ = simulate(tied, 1, seed=1)
    fit = em.fit(tied, data, num_restarts=1, num_steps=30, accelerate=False)
    assert float(fit.trace["log_likelihood"].diff().min()) > -1e-8


@pytest.mark.parametrize(
    ("value", "said"),
    [(torch.inf, "trial 1, bin 2, neuron 'b' is not finite: inf"), (torch.nan, "is missing; say gaps=True")],
)
def test_what_is_broken_is_named(value, said):
    model = GaussianStateSpace(neurons=4, latents=2, bins=8)
    data, _ = simulate(model, 5, seed=1)
    data.observed["y"][1, 2, 1] = value
    labelled = Data(5, {}, data.observed, coords={"neuron": "abcd"})
    with pytest.raises(ValueError, match=said):
        em.fit(model, labelled)
