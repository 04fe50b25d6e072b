"""Spike counts along a hidden path: the E steps against dense Newton, quadrature and each other; EM; moments."""

import math
from itertools import pairwise

import pytest
import torch

from inference import em
from inference.predict import simulate
from ppmodels.base import Data
from ppmodels.population._count_readout import CountReadout
from ppmodels.population._linear_path import LinearPath
from ppmodels.population._poisson_path import count_path
from ppmodels.population._system_sites import system_of
from ppmodels.population.linear_system import LinearSystem
from ppmodels.population.poisson_state_space import PoissonStateSpace

F64 = torch.float64


def _hessian(function):
    return torch.func.jacrev(torch.func.jacrev(function))


def small_system(latents=2, neurons=4, seed=0, rate=20.0):
    g = torch.Generator().manual_seed(seed)
    eye = torch.eye(latents, dtype=F64)
    loading = 0.4 * torch.randn(neurons, latents, generator=g, dtype=F64)
    offset = torch.full((neurons,), math.log(rate), dtype=F64)
    return LinearSystem(0.8 * eye, eye, 0.3 * torch.ones(latents, dtype=F64), 1.5 * eye, loading, offset)


def counted(system, trials, bins, bin_size=0.05, seed=0):
    torch.manual_seed(seed)
    path = system.sample_path(bins, torch.Size([trials]))
    return path, torch.poisson((path @ system.loading.mT + system.offset).exp() * bin_size)


def log_joint(system, path, y, bin_size):
    """log p(path, y), written out, (R,)."""
    eta = path @ system.loading.mT + system.offset + math.log(bin_size)
    return LinearPath(system, y.shape[1]).log_prob(path) + (y * eta - eta.exp() - torch.lgamma(y + 1)).sum((-2, -1))


def test_the_laplace_step_is_dense_newton():
    system, bins, p = small_system(), 12, 2
    _, y = counted(system, 3, bins)
    found = count_path(system, y, 0.05, gaps=False, variational=False)
    for trial in range(3):
        one = y[trial : trial + 1]

        def value(flat, one=one):
            return log_joint(system, flat.reshape(1, bins, p), one, 0.05)[0]

        x = torch.zeros(bins * p, dtype=F64)
        for _ in range(30):
            grad = torch.func.grad(value)(x)
            hessian = _hessian(value)(x)
            x = x - torch.linalg.solve(hessian, grad)
        cov = torch.linalg.inv(-hessian).reshape(bins, p, bins, p).transpose(1, 2)
        torch.testing.assert_close(found.path.mean[trial], x.reshape(bins, p), rtol=0, atol=1e-8)
        own = torch.stack([cov[t, t] for t in range(bins)])
        torch.testing.assert_close(found.path.cov[trial], own, rtol=0, atol=1e-8)
        lag = torch.stack([cov[t + 1, t] for t in range(bins - 1)])
        torch.testing.assert_close(found.path.lag_one[trial], lag, rtol=0, atol=1e-8)
        laplace = value(x) + 0.5 * (bins * p * math.log(2 * math.pi) - torch.logdet(-hessian))
        torch.testing.assert_close(found.path.log_likelihood[trial], laplace, rtol=0, atol=1e-8)


def test_the_variational_step_is_the_top_of_the_bound():
    """Over all Gaussians of a small path: gradient zero by autograd, and the value is the ELBO written out."""
    system, bins, p = small_system(latents=1, seed=2), 4, 1
    _, y = counted(system, 1, bins)
    found = count_path(system, y, 0.05, gaps=False, variational=True)
    blocks = torch.diag(found.path.cov[0, :, 0, 0])
    whole = LinearPath(system, bins)
    prior = _hessian(lambda flat: -whole.log_prob(flat.reshape(bins, p)))(torch.zeros(bins * p, dtype=F64))
    spread = system.loading.squeeze(-1)
    eta = found.path.mean[0] @ system.loading.mT + system.offset + math.log(0.05)
    rate = (eta + 0.5 * spread**2 * found.path.cov[0, :, 0]).exp()
    cov = torch.linalg.inv(prior + torch.diag((rate * spread**2).sum(-1)))
    torch.testing.assert_close(cov.diagonal(), blocks.diagonal(), rtol=0, atol=1e-8)
    root = torch.linalg.cholesky(cov)

    def bound(mean, root):
        cov = root @ root.mT
        eta = mean[:, None] * spread + system.offset + math.log(0.05)
        expected = (y[0] * eta - (eta + 0.5 * spread**2 * cov.diagonal()[:, None]).exp() - torch.lgamma(y[0] + 1)).sum()
        prior_part = whole.log_prob(mean[:, None]) - 0.5 * (prior * cov).sum()
        entropy = 0.5 * bins * (1 + math.log(2 * math.pi)) + root.diagonal().log().sum()
        return expected + prior_part + entropy

    mean = found.path.mean[0, :, 0].clone().requires_grad_()
    root.requires_grad_()
    value = bound(mean, root)
    torch.testing.assert_close(value.detach(), found.path.log_likelihood[0], rtol=0, atol=1e-8)
    for grad in torch.autograd.grad(value, [mean, root]):
        assert float(grad.tril().abs().max() if grad.ndim == 2 else grad.abs().max()) < 1e-7


def test_both_steps_beside_the_exact_likelihood():
    """Importance sampling from a widened q gives log p(y); the bound is below it, and both are near."""
    system = small_system(seed=4)
    _, y = counted(system, 4, 6, seed=1)
    laplace, best = (count_path(system, y, 0.05, False, variational) for variational in (False, True))
    torch.manual_seed(3)
    path = _draws(best.path, 40_000)  # (S, R, T, P)
    log_q = _log_q(best.path, path)
    ratio = log_joint(system, path.reshape(-1, 6, 2), y.repeat(40_000, 1, 1), 0.05).reshape(40_000, 4) - log_q
    exact = ratio.logsumexp(0) - math.log(40_000)
    error = (ratio - exact).exp().std(0) / 200
    assert bool((error < 0.02).all())
    assert bool((best.path.log_likelihood <= exact + 4 * error).all())
    torch.testing.assert_close(best.path.log_likelihood, exact, rtol=0, atol=0.15)
    torch.testing.assert_close(laplace.path.log_likelihood, exact, rtol=0, atol=0.15)


def _precision(path):
    """The whole covariance of a Markov path from its blocks: each step given the one before."""
    back = torch.linalg.solve(path.cov[:, :-1], path.lag_one.mT).mT  # Cov(z_{t+1}, z_t) Var(z_t)^-1
    rest = path.cov[:, 1:] - back @ path.lag_one.mT
    return back, torch.linalg.cholesky(path.cov[:, 0]), torch.linalg.cholesky(rest)


def _draws(path, number):
    back, first, later = _precision(path)
    noise = torch.randn(number, *path.mean.shape, dtype=F64)
    now = (first @ noise[:, :, 0, :, None])[..., 0]
    out = [now]
    for t in range(path.mean.shape[1] - 1):
        now = (back[:, t] @ now[..., None] + later[:, t] @ noise[:, :, t + 1, :, None])[..., 0]
        out.append(now)
    return path.mean + torch.stack(out, 2)


def _log_q(path, draws):
    back, first, later = _precision(path)
    away = draws - path.mean
    steps = away[:, :, 1:, :, None] - back @ away[:, :, :-1, :, None]
    white = torch.linalg.solve_triangular(later, steps, upper=False).square().sum((-3, -2, -1))
    white = white + torch.linalg.solve_triangular(first, away[:, :, 0, :, None], upper=False).square().sum((-2, -1))
    size = first.diagonal(dim1=-2, dim2=-1).log().sum(-1) + later.diagonal(dim1=-2, dim2=-1).log().sum((-2, -1))
    return -0.5 * (white + path.mean[0].numel() * math.log(2 * math.pi)) - size


def test_moments_of_counts_are_those_of_the_log_normal():
    """E y_i = exp(c'm + d + c'Sc / 2) and the covariances that follow; every Fano factor is above one."""
    torch.manual_seed(0)
    system = small_system(seed=7)
    draws = 1_000_000
    path = system.sample_path(1, torch.Size([draws]))
    y = torch.poisson((path @ system.loading.mT + system.offset).exp() * 0.05)[:, 0]
    c, cov = system.loading, system.initial_cov
    half = 0.5 * (c @ cov * c).sum(-1)
    mean = (c @ system.initial_loc + system.offset + half).exp() * 0.05
    expected = torch.outer(mean, mean) * ((c @ cov @ c.mT).exp() - 1) + torch.diag(mean)
    centred = y - mean
    products = centred[:, :, None] * centred[:, None, :]
    assert bool(((y.mean(0) - mean).abs() < 4 * y.std(0) / draws**0.5).all())
    assert bool(((products.mean(0) - expected).abs() < 4 * products.std(0) / draws**0.5).all())
    assert bool((y.var(0) / y.mean(0) > 1).all())


def test_the_readout_step_is_the_top_of_a_concave_function():
    system = small_system()
    _, y = counted(system, 20, 10)
    path = count_path(system, y, 0.05, False, True).path
    readout = CountReadout.of(path, y, 0.05)
    found = [
        readout.maximise(*start)
        for start in ((system.loading, system.offset), (torch.zeros(4, 2, dtype=F64), torch.ones(4, dtype=F64)))
    ]
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=1e-6)
    free = [part.clone().requires_grad_() for part in found[0]]
    for grad in torch.autograd.grad(readout.expected_log_prob(*free), free):
        assert float(grad.abs().max()) < 1e-6


@pytest.fixture(scope="module")
def data():
    model = PoissonStateSpace(neurons=6, latents=2, bins=20)
    return simulate(model, 40, seed=1)


def test_variational_em_climbs_and_laplace_em_is_told_to_be_approximate(data, caplog):
    data, truth = data
    model = PoissonStateSpace(neurons=6, latents=2, bins=20)
    fit = em.fit(model, data, num_restarts=1, num_steps=12, accelerate=False)
    assert float(fit.trace["log_likelihood"].diff().min()) > -1e-8
    assert "the E step is approximate: variational" in fit.info["message"]
    assert "approximate" in caplog.text
    best = em.fit(model, data, num_restarts=1, tol=1e-5)
    site = {name: value for name, value in truth.items() if name not in ("z", "loading")}
    assert best.trace["log_likelihood"][-1] > model.e_step(site, data)[1]
    found, system = system_of(model, {k: v[0, 0] for k, v in best.draws.items()}), system_of(model, site)
    cosines = torch.linalg.svdvals(torch.linalg.qr(found.loading)[0].mT @ torch.linalg.qr(system.loading)[0])
    assert math.degrees(math.acos(min(1.0, float(cosines.min())))) < 10


def test_laplace_em_leaves_its_highest_point_and_is_ended_there(data):
    """The mode taken for the mean makes rates look higher than they are: each M step lowers the offsets, and the path
    rises to make up for it. So the fixed point of the steps is no top, of Laplace's evidence or of the bound.
    """
    data, truth = data
    model = PoissonStateSpace(neurons=6, latents=2, bins=20, approximation="laplace")
    fit = em.fit(model, data, num_restarts=1)
    assert "the E step is approximate: laplace" in fit.info["message"]
    assert "its highest point, step" in fit.info["message"]
    assert not fit.info["converged"]
    assert fit.trace["log_likelihood"].argmax() == len(fit.trace["log_likelihood"]) - 1
    site = {name: value for name, value in truth.items() if name not in ("z", "loading")}
    assert fit.info["log_likelihood"] > model.e_step(site, data)[1]
    theta, bound = {name: value[0, 0] for name, value in fit.draws.items()}, PoissonStateSpace(6, 2, 20)
    there = bound.e_step(theta, data)[1]
    offsets = [float(theta["offset"].mean())]
    for _ in range(20):
        theta = model.m_step(model.e_step(theta, data)[0], data, False)
        offsets.append(float(theta["offset"].mean()))
    assert bound.e_step(theta, data)[1] < there
    assert all(later < before for before, later in pairwise(offsets))


def test_gaps_are_summed_out(data):
    """Bins behind a trial's end, and neurons that were not seen, change nothing for the rest."""
    system = small_system()
    _, y = counted(system, 3, 10)
    padded = torch.cat([y, torch.full((3, 4, 4), torch.nan, dtype=F64)], 1)
    for variational in (False, True):
        plain, gapped = (
            count_path(system, y, 0.05, False, variational),
            count_path(system, padded, 0.05, True, variational),
        )
        torch.testing.assert_close(gapped.path.log_likelihood, plain.path.log_likelihood, rtol=0, atol=1e-9)
        torch.testing.assert_close(gapped.path.mean[:, :10], plain.path.mean, rtol=0, atol=1e-8)


def test_a_silent_neuron_is_told_of_and_the_rest_is_fitted(data, caplog):
    data, _ = data
    y = data.observed["y"].clone()
    y[..., 4] = 0.0
    model = PoissonStateSpace.for_data(y, latents=2)
    fit = em.fit(model, Data(40, {}, {"y": y}, coords={"neuron": list("abcdef")}), num_restarts=1, num_steps=8)
    assert "neuron 'e' (no spikes)" in caplog.text
    assert all(bool(value.isfinite().all()) for value in fit.draws.values())
    assert float(fit.draws["offset"][0, 0, 4]) < float(fit.draws["offset"][0, 0, :4].min())


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (-1.0, "is negative, which no count is: -1"),
        (1.5, "is no whole number, which counts are: 1.5"),
        (torch.inf, "is not finite"),
    ],
)
def test_what_is_no_count_is_named(data, value, said):
    y = data[0].observed["y"].clone()
    y[2, 3, 1] = value
    model = PoissonStateSpace(neurons=6, latents=2, bins=20)
    with pytest.raises(ValueError, match=f"trial 2, bin 3, neuron 1 {said}"):
        em.fit(model, Data(40, {}, {"y": y}))
