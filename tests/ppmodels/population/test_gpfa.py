"""Gaussian-process factor analysis: against the dense Gaussian, factor analysis, and principal components."""

import math

import pytest
import torch
from sklearn.decomposition import PCA, FactorAnalysis

from inference import em
from inference.predict import simulate
from ppmodels.base import Data
from ppmodels.population._gp_path import ProcessReadout, infer, kernels
from ppmodels.population.factors import leave_neuron_out, orthonormalised
from ppmodels.population.gpfa import GaussianProcessFactorAnalysis
from ppmodels.population.trials import stack

F64 = torch.float64


def readout(seed=0, neurons=5, bins=7, timescales=(0.05, 0.1)):
    g = torch.Generator().manual_seed(seed)
    kernel = kernels(torch.tensor(timescales, dtype=F64), bins, 0.02, 1e-3)
    loading = torch.randn(neurons, len(timescales), generator=g, dtype=F64)
    offset = torch.randn(neurons, generator=g, dtype=F64)
    return ProcessReadout(kernel, loading, offset, torch.rand(neurons, generator=g, dtype=F64) + 0.3)


def dense(r, y):
    """log p(y) of one trial, and its latents' mean and covariance, from the whole joint Gaussian, bin by bin."""
    p, bins, _ = r.kernel.shape
    prior = torch.einsum("ptu,pq->tpuq", r.kernel, torch.eye(p, dtype=F64)).reshape(bins * p, -1)
    seen = ~y.reshape(-1).isnan()
    wide = torch.block_diag(*[r.loading] * bins)[seen]
    spread = wide @ prior @ wide.mT + torch.diag(r.noise.repeat(bins)[seen])
    residual = y.reshape(-1)[seen] - r.offset.repeat(bins)[seen]
    log_p = torch.distributions.MultivariateNormal(torch.zeros_like(residual), spread).log_prob(residual)
    gain = torch.linalg.solve(spread, wide @ prior).mT
    return log_p, (gain @ residual).reshape(bins, p), (prior - gain @ wide @ prior).reshape(bins, p, bins, p)


@pytest.mark.parametrize("gaps", [False, True])
def test_likelihood_and_posterior_are_those_of_the_dense_gaussian(gaps):
    r = readout()
    y = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(1), dtype=F64)
    if gaps:
        y[0, 5:], y[1, 2, 3], y[2, 0] = torch.nan, torch.nan, torch.nan
        found = infer(r, y[:, None], ~y.isnan())
    else:
        found = infer(r, y[None])
    mean = found.mean.squeeze(-1) if gaps else found.mean[0].mT
    cov = found.cov_root @ found.cov_root.mT
    for trial in range(3):
        log_p, exact, spread = dense(r, y[trial])
        torch.testing.assert_close(found.log_likelihood.reshape(-1)[trial], log_p, rtol=0, atol=1e-8)
        torch.testing.assert_close(mean[trial].unflatten(0, (2, 7)).mT, exact, rtol=0, atol=1e-10)
        own = cov[trial if gaps else 0].reshape(2, 7, 2, 7).permute(1, 0, 3, 2)
        torch.testing.assert_close(own, spread, rtol=0, atol=1e-10)
    whole = torch.logdet(cov)
    torch.testing.assert_close(found.log_det, whole, rtol=1e-8, atol=0)


@pytest.fixture(scope="module")
def population():
    """50 trials of 10 neurons behind latents with timescales of 60 and 200 ms."""
    model = GaussianProcessFactorAnalysis(neurons=10, latents=2, bins=25, bin_size=0.02)
    g = torch.Generator().manual_seed(3)
    theta = {
        "timescale": torch.tensor([0.2, 0.06], dtype=F64),
        "loading": torch.randn(10, 2, generator=g, dtype=F64),
        "offset": torch.randn(10, generator=g, dtype=F64),
        "noise": torch.full((10,), 0.7, dtype=F64),
    }
    r = model.readout(theta)
    torch.manual_seed(4)
    latents = (torch.linalg.cholesky(r.kernel) @ torch.randn(50, 2, 25, 1, dtype=F64))[..., 0].mT
    clean = latents @ r.loading.mT + r.offset
    return model, model.relabel(theta), clean, clean + 0.7 * torch.randn_like(clean)


def test_em_climbs_and_finds_timescales_and_space(population):
    model, truth, _, y = population
    data = Data.of(model, y=y)
    plain = em.fit(model, data, num_restarts=1, num_steps=60, accelerate=False)
    assert float(plain.trace["log_likelihood"].diff().min()) > -1e-8
    fit = em.fit(model, data, num_restarts=2, tol=1e-8)
    assert fit.info["converged"]
    assert fit.trace["log_likelihood"][-1] > model.e_step(truth, data)[1]
    theta = {name: value[0, 0] for name, value in fit.draws.items()}
    torch.testing.assert_close(theta["timescale"], truth["timescale"], rtol=0.15, atol=0)
    cosines = torch.linalg.svdvals(torch.linalg.qr(theta["loading"])[0].mT @ torch.linalg.qr(truth["loading"])[0])
    assert math.degrees(math.acos(min(1.0, float(cosines.min())))) < 10
    q, value = model.e_step(theta, data)
    torch.testing.assert_close(model.bound(q, theta, data), value, rtol=1e-10, atol=0)


def test_without_time_it_is_factor_analysis(population):
    """Timescales of nothing make every bin its own: the highest likelihood is scikit-learn's."""
    _, _, _, y = population
    model = GaussianProcessFactorAnalysis.for_data(y, latents=2)
    fa = FactorAnalysis(2, tol=1e-12, max_iter=20_000, svd_method="lapack").fit(y.flatten(0, 1).numpy())
    theta = {
        "timescale": torch.full((2,), 1e-6, dtype=F64),
        "loading": torch.tensor(fa.components_.T.copy()),
        "offset": torch.tensor(fa.mean_),
        "noise": torch.tensor(fa.noise_variance_).sqrt(),
    }
    value = model.e_step(theta, Data.of(model, y=y))[1]
    assert float(value) == pytest.approx(fa.score(y.flatten(0, 1).numpy()) * 50 * 25, rel=1e-9)


def test_orthonormal_latents_say_the_same():
    r = readout()
    mean = torch.randn(4, 7, 2, generator=torch.Generator().manual_seed(2), dtype=F64)
    basis, turned = orthonormalised(r.loading, mean)
    torch.testing.assert_close(basis.mT @ basis, torch.eye(2, dtype=F64))
    torch.testing.assert_close(turned @ basis.mT, mean @ r.loading.mT)
    alike = ProcessReadout(r.kernel[:1].expand(2, -1, -1), r.loading, r.offset, r.noise)
    _, size, turn = torch.linalg.svd(r.loading, full_matrices=False)
    rotated = ProcessReadout(alike.kernel, r.loading @ turn.mT, r.offset, r.noise)
    y = torch.randn(1, 3, 7, 5, generator=torch.Generator().manual_seed(1), dtype=F64)
    torch.testing.assert_close(infer(alike, y).log_likelihood, infer(rotated, y).log_likelihood)
    assert bool((size[:-1] >= size[1:]).all())


def test_a_neuron_left_out_is_told_better_than_by_smoothed_components(population):
    """Fitted on half of the trials; the other half predicts each neuron from the rest (Yu et al., figure 4)."""
    model, _, _, y = population
    gapped = GaussianProcessFactorAnalysis.for_data(y[:25], latents=2, gaps=True)
    fit = em.fit(gapped, Data.of(gapped, y=y[:25]), num_restarts=1, num_steps=100, tol=1e-6)
    theta, held = {k: v[0, 0] for k, v in fit.draws.items()}, y[25:]
    ours = (leave_neuron_out(gapped, theta, Data.of(gapped, y=held)) - held).square().mean()
    best = min(_pca_error(y[:25], held, width) for width in (1, 2, 3, 5))
    assert float(ours) < 0.98 * best
    with pytest.raises(ValueError, match="make the model with gaps=True"):
        leave_neuron_out(model, theta, Data.of(model, y=held))


def _pca_error(train, held, width):
    """Principal components, then a boxcar; every neuron from the others' components by least squares."""
    pca = PCA(2).fit(train.flatten(0, 1).numpy())
    loading, mean = torch.tensor(pca.components_.T.copy()), torch.tensor(pca.mean_)
    total = 0.0
    for neuron in range(held.shape[-1]):
        others = [i for i in range(held.shape[-1]) if i != neuron]
        scores = torch.linalg.lstsq(loading[others], (held - mean)[..., others].flatten(0, 1).mT).solution.mT
        scores = scores.unflatten(0, held.shape[:2]).mT
        smooth = torch.nn.functional.avg_pool1d(scores, width, 1, width // 2, count_include_pad=False)[
            ..., : held.shape[1]
        ]
        total += float((smooth.mT @ loading[neuron] + mean[neuron] - held[..., neuron]).square().mean())
    return total / held.shape[-1]


def test_trials_of_different_length(population):
    *_, y = population
    trials = [trial[: 25 - k % 4] for k, trial in enumerate(y[:12])]
    stacked, coords = stack(trials, 0.02)
    ragged = GaussianProcessFactorAnalysis.for_data(stacked, latents=2)
    data = Data.of(ragged, y=stacked, coords=coords)
    fit = em.fit(ragged, data, num_restarts=1, num_steps=15, accelerate=False)
    assert float(fit.trace["log_likelihood"].diff().min()) > -1e-8
    theta = {k: v[0, 0] for k, v in fit.draws.items()}
    each = []
    for trial in trials:
        short = GaussianProcessFactorAnalysis.for_data(trial[None], latents=2)
        each.append(short.e_step(theta, Data.of(short, y=trial[None]))[1])
    torch.testing.assert_close(fit.trace["log_likelihood"][-1], sum(each), rtol=1e-10, atol=0)


def test_the_tree_speaks_of_trials_neurons_and_latents():
    model = GaussianProcessFactorAnalysis()
    data, _ = simulate(model, 6, seed=1)
    tree = em.fit(model, data, num_restarts=1, num_steps=4).to_datatree(prior=5)
    assert tree["posterior"]["loading"].dims == ("chain", "draw", "neuron", "latent")
    assert tree["observed_data"]["y"].dims == ("trial", "time", "neuron")
    assert tree["log_likelihood"]["y"].dims == ("chain", "draw", "trial")
    assert tree["posterior_predictive"]["y"].dims == ("chain", "draw", "trial", "time", "neuron")
