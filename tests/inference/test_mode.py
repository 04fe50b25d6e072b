"""The mode: closed forms in both coordinates, honest ends, and no trace left in Pyro."""

import json

import pyro
import pyro.distributions as dist
import pytest
import torch

from inference import mode
from tests.inference.posteriors import NAMES, posterior

F = torch.float64


def beta(y):
    p = pyro.sample("p", dist.Beta(3.0, 5.0))
    pyro.deterministic("odds", p / (1 - p))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Bernoulli(p), obs=y)


COINS = torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=F)  # the posterior is Beta(6, 6 - 0)


@pytest.mark.parametrize(("jacobian", "expected"), [(False, (6 - 1) / (6 + 6 - 2)), (True, 6 / 12)])
def test_beta_symmetric(jacobian, expected):
    fit = mode.fit(beta, COINS, jacobian=jacobian)
    assert float(fit.draws["p"]) == pytest.approx(expected, abs=1e-10)
    assert float(fit.draws["odds"]) == pytest.approx(1.0, abs=1e-10)


@pytest.mark.parametrize(("jacobian", "expected"), [(False, (4 - 1) / (4 + 6 - 2)), (True, 4 / 10)])
def test_beta(jacobian, expected):
    fit = mode.fit(beta, torch.tensor([1.0, 0.0], dtype=F), jacobian=jacobian)
    assert fit.info["converged"]
    assert fit.draws["p"].shape == (1, 1)
    assert float(fit.draws["p"]) == pytest.approx(expected, abs=1e-10)
    assert float(fit.draws["odds"]) == pytest.approx(expected / (1 - expected), abs=1e-9)


@pytest.mark.parametrize("jacobian", [False, True])
def test_dirichlet(jacobian):
    a = torch.tensor([2.0, 3.0, 5.0], dtype=F)
    fit = mode.fit(lambda a: pyro.sample("p", dist.Dirichlet(a)), a, jacobian=jacobian)
    expected = a / a.sum() if jacobian else (a - 1) / (a.sum() - 3)
    assert torch.allclose(fit.draws["p"][0, 0], expected, atol=1e-10)
    value = dist.Dirichlet(a).log_prob(expected)
    if not jacobian:
        assert fit.info["log_density"] == pytest.approx(float(value), abs=1e-12)


def test_gamma_scale_of_a_normal():
    """HalfCauchy-free check on a positive site: Gamma(a, b) has its mode at (a - 1) / b, or a / b."""
    program = lambda rate: pyro.sample("rate", dist.Gamma(3.5, rate))  # noqa: E731
    rate = torch.tensor(2.0, dtype=F)
    assert float(mode.fit(program, rate).draws["rate"]) == pytest.approx(1.25, abs=1e-10)
    assert float(mode.fit(program, rate, jacobian=True).draws["rate"]) == pytest.approx(1.75, abs=1e-10)


def ridge(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(x.shape[1]), 0.7).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal((x * w).sum(-1), 0.5), obs=y)


def test_map_of_linear_regression_is_ridge():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 4, generator=generator, dtype=F) * torch.tensor([1.0, 10.0, 100.0, 0.1], dtype=F)
    y = torch.randn(30, generator=generator, dtype=F)
    expected = torch.linalg.solve(x.T @ x + (0.5 / 0.7) ** 2 * torch.eye(4, dtype=F), x.T @ y)
    fit = mode.fit(ridge, x, y)
    assert torch.allclose(fit.draws["w"][0, 0], expected, rtol=1e-9, atol=1e-12)
    assert fit.info["grad_norm"] < 1e-8


def two_hills(height):
    x = pyro.sample("x", dist.Normal(0.0, 1.0).mask(False))
    each = dist.Normal(torch.tensor([-1.5, 1.5]), 0.3).log_prob(x)
    pyro.factor("hills", (each + torch.stack([height, 1 - height]).log()).logsumexp(-1))


def test_finds_the_higher_of_two_modes_and_counts_them():
    fit = mode.fit(two_hills, torch.tensor(0.3, dtype=F), num_restarts=12)
    assert float(fit.draws["x"]) == pytest.approx(1.5, abs=1e-3)
    assert fit.info["num_modes"] == 2
    assert "6 of 12 restarts reached this mode; others found 1 more" in fit.info["message"]
    assert len(fit.info["restarts"]) == 12


def mixture(x):
    weights = pyro.sample("weights", dist.Dirichlet(torch.full((2,), 2.0)))
    loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 5.0).to_event(1))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)


def test_mixture_sums_out_the_assignments():
    x = torch.tensor([-3.1, -2.7, -3.4, 2.6, 3.0, 3.3, 3.1], dtype=F)
    fit = mode.fit(mixture, x)
    assert fit.info["converged"]
    assert set(fit.draws) == {"weights", "loc"}

    w, m = fit.draws["weights"][0, 0], fit.draws["loc"][0, 0]
    one, five = torch.ones((), dtype=F), torch.tensor(5.0, dtype=F)
    each = dist.Normal(m, one).log_prob(x[:, None]) + w.log()
    prior = dist.Dirichlet(2 * one.expand(2)).log_prob(w) + dist.Normal(0 * one, five).log_prob(m).sum()
    assert fit.info["log_density"] == pytest.approx(float(each.logsumexp(-1).sum() + prior), abs=1e-10)
    share = torch.softmax(each, -1)
    fixed_point = (share * x[:, None]).sum(0) / (share.sum(0) + 1 / 25)  # EM's M step with this prior
    assert torch.allclose(m, fixed_point, atol=1e-8)
    assert fit.info["num_modes"] == 2  # the labels can be exchanged


def test_an_edge_is_not_a_mode():
    fit = mode.fit(lambda scale: pyro.sample("tau", dist.HalfNormal(scale)), torch.tensor(1.0, dtype=F))
    assert not fit.info["converged"]
    assert "'tau'" in fit.info["message"]
    assert float(fit.draws["tau"]) < 1e-3


def test_a_ridge_is_not_a_mode():
    def program(y):
        a = pyro.sample("a", dist.Normal(0.0, 1.0).mask(False))
        b = pyro.sample("b", dist.Normal(0.0, 1.0).mask(False))
        pyro.sample("y", dist.Normal(a + b, 1.0).expand([len(y)]).to_event(1), obs=y)

    fit = mode.fit(program, torch.tensor([1.0, 2.0], dtype=F))
    assert not fit.info["converged"]
    assert "no strict maximum" in fit.info["message"]


def test_says_when_steps_ran_out():
    x = torch.linspace(-1, 1, 20, dtype=F)
    design = torch.stack([x, 50 * x**2], -1)
    fit = mode.fit(ridge, design, x.exp(), num_steps=1)
    assert not fit.info["converged"]
    assert "raise num_steps" in fit.info["message"]


def test_trace_climbs_to_the_answer():
    fit = mode.fit(beta, COINS)
    trace = fit.trace["log_density"]
    assert bool((trace.diff() >= 0).all())
    assert len(trace) == fit.info["num_steps"] + 1
    assert float(trace[-1]) == pytest.approx(fit.info["log_density"], abs=1e-7)
    json.dumps(fit.info, allow_nan=False)


def test_same_seed_same_answer_and_no_trace_left():
    pyro.clear_param_store()
    state = torch.random.get_rng_state()
    one, two = (mode.fit(mixture, torch.tensor([-2.0, -1.5, 1.0, 2.0], dtype=F), seed=3) for _ in range(2))
    assert torch.equal(one.draws["loc"], two.draws["loc"])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not list(pyro.get_param_store())
    assert torch.get_default_dtype() == torch.float32


def test_single_precision_data_give_a_single_precision_mode():
    fit = mode.fit(beta, COINS.float())
    assert fit.draws["p"].dtype == torch.float32
    assert fit.info["converged"]
    assert float(fit.draws["p"]) == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("options", [{"num_restarts": 0}, {"num_steps": 0}])
def test_refuses_no_work(options):
    with pytest.raises(ValueError, match="at least 1"):
        mode.fit(beta, COINS, **options)


@pytest.mark.parametrize("name", NAMES)
def test_every_start_reaches_the_top_of_real_posteriors(name):
    program, data, _ = posterior(name)
    fit = mode.fit(program, data, jacobian=True, num_restarts=16)
    assert fit.info["converged"], fit.info["message"]
    ends = torch.tensor([restart["log_density"] for restart in fit.info["restarts"]])
    assert float((ends.max() - ends < 1e-5).double().mean()) >= 0.8
    assert fit.info["decrement"] < 1e-15
