"""Hard shapes at default settings: right answers, or a clear warning."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from inference import mcmc

BASIS = torch.linalg.qr(torch.randn(10, 10, generator=torch.Generator().manual_seed(9), dtype=torch.float64)).Q
COVARIANCE = BASIS * torch.logspace(-2, 2, 10, dtype=torch.float64) @ BASIS.mT  # of condition 1e4


def funnel():
    v = pyro.sample("v", dist.Normal(0.0, 3.0))
    with pyro.plate("row", 9):
        pyro.sample("x", dist.Normal(0.0, (v / 2).exp()))


def banana():
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    pyro.sample("b", dist.Normal(a.square(), 0.5))


def conditioned(covariance):
    pyro.sample("x", dist.MultivariateNormal(torch.zeros(10), covariance))


def modes(apart):
    x = pyro.sample("x", dist.Normal(0.0, 1.0).mask(False))
    both = torch.stack([dist.Normal(-apart, 1.0).log_prob(x), dist.Normal(apart, 1.0).log_prob(x)])
    pyro.factor("p", both.logsumexp(0))


def assert_moments(draws, mean, sd):
    flat = draws.flatten(0, 1)
    assert ((flat.mean(0) - mean) / sd).abs().max() < 0.06
    ratio = flat.std(0) / sd
    assert ratio.min() > 0.93
    assert ratio.max() < 1.07


def sentences(fit):
    return [f"{f.level} {f.site}: {f.sentence}" for f in fit.diagnose().findings]


def test_an_ill_conditioned_gaussian():
    fit = mcmc.fit(conditioned, COVARIANCE, seed=1)
    along = fit.draws["x"] @ BASIS
    assert_moments(along, 0.0, torch.logspace(-1, 1, 10, dtype=torch.float64))
    assert fit.diagnose().ok, fit.diagnose()
    assert not fit.stats["diverging"].any()


@pytest.mark.slow
def test_a_banana():
    fit = mcmc.fit(banana, seed=1)
    assert_moments(fit.draws["a"], 0.0, 1.0)
    assert_moments(fit.draws["b"], 1.0, 1.5)
    assert float(fit.summary()["r_hat"].max()) < 1.01
    assert fit.stats["diverging"].double().mean() < 1e-3


@pytest.mark.slow
def test_a_funnel_is_right_or_warned_of_with_the_way_out():
    fit = mcmc.fit(funnel, seed=0)
    found = sentences(fit)
    flat = fit.draws["v"].flatten()
    wrong = abs(flat.mean()) / 3 > 0.06 or not 0.93 < flat.std() / 3 < 1.07
    assert not wrong or not fit.diagnose().ok
    if fit.stats["diverging"].any():
        assert not any("separate modes" in s for s in found), found
        assert any("where 'v'" in s and "write 'x' non-centred" in s for s in found), found


def test_the_way_out_of_the_funnel_is_one():
    def straight():
        v = pyro.sample("v", dist.Normal(0.0, 3.0))
        with pyro.plate("row", 9):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.deterministic("x", z * (v / 2).exp())

    fit = mcmc.fit(straight, seed=0)
    assert_moments(fit.draws["v"], 0.0, 3.0)
    assert fit.diagnose().ok, fit.diagnose()
    assert not fit.stats["diverging"].any()


@pytest.mark.parametrize("chains", [None, 8])
def test_two_separate_modes_are_warned_of(chains):
    for seed in range(2):
        fit = mcmc.fit(modes, 10.0, num_chains=chains, seed=seed)
        x = fit.draws["x"]
        assert ((x > 0).double().mean(1) % 1 == 0).all()  # no chain crosses
        if bool((x > 0).any() and (x < 0).any()):
            (found,) = (s for s in sentences(fit) if "separate modes" in s)
            assert found.startswith("error x: ")
            assert not any("times as long" in s for s in sentences(fit))


def test_modes_that_touch_are_no_alarm():
    fit = mcmc.fit(modes, 1.5, seed=0)
    assert_moments(fit.draws["x"], 0.0, (1 + 1.5**2) ** 0.5)
    assert fit.diagnose().ok, fit.diagnose()


def test_too_few_draws_say_how_many_more():
    fit = mcmc.fit(banana, num_chains=2, num_samples=60, num_warmup=100, seed=0)
    assert any("ESS" in s and "times as long" in s for s in sentences(fit))
