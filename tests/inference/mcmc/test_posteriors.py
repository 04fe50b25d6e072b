"""Hard shapes at default settings: right answers, or a clear warning."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from inference import mcmc
from inference.mcmc import run
from tests.inference.posteriors import NAMES, posterior

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
    ratio = flat.std(0) / sd  # a sd, or one for each element
    assert ratio.min() > 0.93
    assert ratio.max() < 1.07


def sentences(fit):
    return [f"{f.level} {f.site}: {f.sentence}" for f in fit.diagnose().findings]


def assert_sound(fit, rhat=1.01):
    assert fit.diagnose().ok, fit.diagnose()
    assert not fit.stats["diverging"].any()
    assert float(fit.summary()["r_hat"].max()) < rhat


def assert_funnel(fit):
    v = fit.draws["v"]
    assert_moments(v, 0.0, 3.0)
    z = fit.draws["x"] / (v[..., None] / 2).exp()
    assert_moments(z, 0.0, 1.0)


def assert_banana(fit):
    assert_moments(fit.draws["a"], 0.0, 1.0)
    assert_moments(fit.draws["b"], 1.0, 1.5)


def assert_conditioned(fit):
    assert_moments(fit.draws["x"] @ BASIS, 0.0, torch.logspace(-1, 1, 10, dtype=torch.float64))


HARD = {
    "funnel": (funnel, (), assert_funnel),
    "banana": (banana, (), assert_banana),
    "conditioned": (conditioned, (COVARIANCE,), assert_conditioned),
}


@pytest.mark.parametrize("name", HARD)
def test_hard_shapes_at_default_settings(name):
    program, args, assert_right = HARD[name]
    fit = mcmc.fit(program, *args, seed=1)
    assert_right(fit)
    assert_sound(fit)


@pytest.mark.slow
@pytest.mark.parametrize(("chains", "samples"), [(4, 6000), (16, 2000), (64, 1000), (1024, 400), (4096, 200)])
@pytest.mark.parametrize("name", HARD)
def test_hard_shapes_by_any_number_of_chains(name, chains, samples):
    program, args, assert_right = HARD[name]
    fit = mcmc.fit(program, *args, seed=2, num_chains=chains, num_samples=samples)
    assert fit.stats["lp"].shape == (chains, samples)
    assert_right(fit)
    assert_sound(fit, rhat=1.01 if chains <= 64 else math.inf)  # R-hat of a short chain is not; `diagnose` nests them


def test_a_funnel_as_written_is_warned_of_with_the_way_out(monkeypatch):
    monkeypatch.setattr(run, "HALVINGS", 0)
    few = {"num_chains": 64, "num_warmup": 100, "num_samples": 60, "max_tree_depth": 6, "compile": False}
    fit = mcmc.fit(funnel, seed=0, centred=True, **few)
    found = sentences(fit)
    assert fit.stats["diverging"].any()
    assert not any("separate modes" in s for s in found), found
    assert any("where 'v'" in s and "write 'x' non-centred" in s for s in found), found


REFERENCE = [
    pytest.param(name, seed, marks=() if (name, seed) == ("eight_schools", 0) else pytest.mark.slow)
    for name in NAMES
    for seed in range(2)
]


@pytest.mark.parametrize(("name", "seed"), REFERENCE)
def test_reference_posteriors_at_default_settings(name, seed):
    """Plain programs and long reference runs that others wrote."""
    program, data, reference = posterior(name)
    fit = mcmc.fit(program, data, seed=seed)
    judged = 0
    for site, truth in reference.items():
        if site in fit.draws:
            mean, sd = (torch.tensor(truth[key], dtype=torch.float64) for key in ("mean", "sd"))
            assert_moments(fit.draws[site], mean, sd)
            judged += mean.numel()
    assert judged >= 3
    assert_sound(fit)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["nuts", "hmc", "chees", "mams"])
@pytest.mark.parametrize("name", NAMES)
def test_reference_posteriors_by_four_chains_of_any_kernel(name, kernel):
    program, data, reference = posterior(name)
    fit = mcmc.fit(program, data, kernel=kernel, num_chains=4, num_samples=4000, seed=1)
    for site, truth in reference.items():
        mean, sd = (torch.tensor(truth[key], dtype=torch.float64) for key in ("mean", "sd"))
        assert_moments(fit.draws[site], mean, sd)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["nuts", "hmc", "chees", "mams"])
def test_eight_schools_is_right_from_any_seed_by_any_kernel(kernel):
    program, data, reference = posterior("eight_schools")
    for seed in range(20 if kernel == "nuts" else 4):
        fit = mcmc.fit(program, data, seed=seed, kernel=kernel, num_chains=256)
        for site in ("mu", "tau"):
            assert_moments(fit.draws[site], reference[site]["mean"], reference[site]["sd"])
        assert fit.stats["lp"].min() > -100, seed  # no chain is left far out


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


def test_steps_too_long_are_told_to_be_shortened(monkeypatch):
    def steep():
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        pyro.sample("b", dist.Normal(a.square(), 0.2))

    monkeypatch.setattr(run, "HALVINGS", 0)
    few = {"num_chains": 32, "num_warmup": 60, "num_samples": 80, "compile": False}
    fit = mcmc.fit(steep, seed=1, target_accept_prob=0.5, **few)
    (found,) = (s for s in sentences(fit) if "diverge" in s)
    assert "raise target_accept_prob from 0.5 to 0.95" in found
    careful = mcmc.fit(steep, seed=1, target_accept_prob=0.95, **few)
    assert careful.stats["diverging"].sum() < fit.stats["diverging"].sum() / 2


def test_what_data_know_only_together_is_named():
    def program(y, prior):
        a = pyro.sample("a", dist.Normal(0.0, prior))
        b = pyro.sample("b", dist.Normal(0.0, prior))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(a + b, 1.0), obs=y)

    y = torch.linspace(-1, 3, 50, dtype=torch.float64)
    few = {"num_chains": 8, "num_warmup": 100, "num_samples": 200, "compile": False}
    found = sentences(mcmc.fit(program, y, 10.0, **few))
    (told,) = (s for s in found if "known only together" in s)
    assert told.startswith("note a: 'a' and 'b'")
    assert "fix one of them, or write the model in terms of their sum" in told
    assert not any("known only together" in s for s in sentences(mcmc.fit(program, y, 0.2, **few)))
