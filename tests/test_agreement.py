"""Back ends give one answer to one question, measured in posterior standard deviations."""

import pytest
import torch

from inference import exact, laplace, mcmc, mode, svi
from inference.check import summary
from inference.predict import simulate
from ppmodels.kernels.gp import GaussianProcess
from ppmodels.memory.boltzmann import BoltzmannMachine
from ppmodels.regression.linear import LinearRegression


def moments(fit):
    """Mean and sd of each site."""
    return {n: (value.mean((0, 1)), value.flatten(0, 1).std(0)) for n, value in fit.draws.items()}


def apart(found, truth):
    """The largest gap of means in posterior sds, and the sd ratio that is furthest from 1."""
    gaps, ratios = [], []
    for site, (mean, sd) in truth.items():
        gaps.append(((found[site][0] - mean) / sd).abs().max())
        ratios.append((found[site][1] / sd).flatten())
    ratios = torch.cat(ratios)
    return float(torch.stack(gaps).max()), float(ratios[ratios.log().abs().argmax()])


def regression():
    model = LinearRegression(features=2, noise=0.7, spread=3.0)
    return model, simulate(model, 40, seed=2)[0]


@pytest.mark.parametrize(
    ("fit", "options", "gap", "ratio"),
    [
        (exact.fit, {"num_samples": 20_000}, 0.03, 1.02),
        (laplace.fit, {"num_samples": 20_000}, 0.03, 1.02),
        (mcmc.fit, {"num_chains": 64, "num_samples": 300, "compile": False}, 0.03, 1.03),
        (svi.fit, {"guide": "full-rank", "num_samples": 20_000, "compile": False}, 0.05, 1.05),
    ],
    ids=["exact", "laplace", "mcmc", "svi"],
)
def test_every_method_finds_the_exact_posterior(fit, options, gap, ratio):
    """Gaussian: so the approximations are exact, and what is left is their Monte-Carlo error."""
    model, data = regression()
    site = model.posterior(data)["coef"]
    found = apart(moments(fit(model, data, seed=1, **options)), {"coef": (site.mean, site.stddev)})
    assert found[0] < gap
    assert 1 / ratio < found[1] < ratio


def test_mcmc_finds_the_exact_posterior_of_unknown_noise():
    """Its sites depend on one another; exact draws are drawn one after the other."""
    model = LinearRegression(features=2, noise=None)
    data = simulate(model, 25, seed=3)[0]
    truth = moments(exact.fit(model, data, num_samples=50_000, seed=1))
    found = mcmc.fit(model, data, seed=1, num_chains=64, num_samples=300, compile=False)
    gap, ratio = apart(moments(found), truth)
    assert gap < 0.03
    assert 1 / 1.04 < ratio < 1.04
    assert exact.fit(model, data).info["log_evidence"] == pytest.approx(float(model.log_evidence(data)), abs=1e-10)


def test_evidences_of_exact_and_laplace_are_one_number():
    model, data = regression()
    one, two = exact.fit(model, data).info["log_evidence"], laplace.fit(model, data).info["log_evidence"]
    assert two == pytest.approx(one, abs=1e-6)


def test_the_mode_is_the_mean_of_a_gaussian():
    model, data = regression()
    site = model.posterior(data)["coef"]
    point = mode.fit(model, data, seed=1).draws["coef"][0, 0]
    assert float(((point - site.mean) / site.stddev).abs().max()) < 1e-3


REFERENCE = {"num_chains": 64, "num_samples": 1500, "num_warmup": 400, "seed": 99}


@pytest.mark.slow
def test_approximations_agree_with_a_long_run():
    """One mode, nearly Gaussian: NUTS to its Monte-Carlo error, Gaussians to theirs, mean-field in its means."""
    model = BoltzmannMachine(units=4)
    data, _ = simulate(model, 300, seed=4)
    long = mcmc.fit(model, data, **REFERENCE)
    assert summary(long)["r_hat"].max() < 1.01
    truth = moments(long)
    gap, ratio = apart(moments(mcmc.fit(model, data, seed=1, kernel="nuts", num_chains=8, num_samples=1000)), truth)
    assert gap < 0.08
    assert 0.9 < ratio < 1.1
    for fit, options in ((laplace.fit, {}), (svi.fit, {"guide": "full-rank"})):
        gap, ratio = apart(moments(fit(model, data, seed=1, num_samples=10_000, **options)), truth)
        assert gap < 0.35, fit
        assert 0.75 < ratio < 1.33, fit
    gap, _ = apart(moments(svi.fit(model, data, seed=1, guide="mean-field", num_samples=10_000)), truth)
    assert gap < 0.5


@pytest.mark.slow
def test_a_heavy_tail_is_reached_by_nuts_and_noticed_by_laplace():
    """Few noisy rows: a long lengthscale, with the function a constant, explains them too, in a tail of its own.

    No Gaussian has that tail: Laplace's draws of the lengthscale are far too narrow, and its k-hat shows it.
    """
    model, options = GaussianProcess(), {"compile": False}
    data, _ = simulate(model, 60, seed=4)
    long = mcmc.fit(model, data, seed=99, num_chains=32, num_samples=400, num_warmup=300, **options)
    assert summary(long)["r_hat"].max() < 1.01
    truth = moments(long)
    nuts = mcmc.fit(model, data, seed=1, kernel="nuts", num_chains=8, num_samples=300, **options)
    gap, ratio = apart(moments(nuts), truth)
    assert gap < 0.1
    assert 0.9 < ratio < 1.1
    near = laplace.fit(model, data, seed=1, num_samples=10_000)
    assert near.info["khat"] > 0.5
    assert float(moments(near)["lengthscale"][1] / truth["lengthscale"][1]) < 0.6
