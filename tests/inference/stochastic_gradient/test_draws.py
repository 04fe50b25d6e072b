"""Langevin's steps: the bias that theory gives them, the averages they keep, and a resumed run the same to the bit."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from inference import Unsupported, stochastic_gradient
from inference.predict import simulate
from ppmodels.base import Data
from ppmodels.regression.bnn import BayesianNeuralNetwork
from ppmodels.regression.linear import LinearRegression

F = torch.float64
QUICK = {"num_warmup": 200, "compile": False, "precondition": False}


def gaussian(sd):
    with pyro.plate("dim", len(sd)):
        pyro.sample("x", dist.Normal(torch.ones_like(sd), sd))


@pytest.mark.parametrize("lr", [0.4, 0.1])
def test_langevins_variance_is_too_large_by_the_step(lr):
    """x <- x - a/2 x + sqrt(a) z has variance 1 / (1 - a / 4): a bias of the order of the step."""
    fit = stochastic_gradient.fit(
        gaussian, torch.ones(50, dtype=F), kernel="sgld", lr=lr, num_chains=20, num_samples=200, thinning=8, **QUICK
    )
    x = fit.draws["x"].flatten()
    assert float(x.mean()) == pytest.approx(1.0, abs=0.02)
    assert float(x.var()) == pytest.approx(1 / (1 - lr / 4), rel=0.012)


def test_momentum_keeps_the_variance_and_travels_further():
    fit = stochastic_gradient.fit(
        gaussian, torch.ones(50, dtype=F), kernel="sghmc", lr=0.04, num_chains=20, num_samples=200, thinning=15, **QUICK
    )
    x = fit.draws["x"]
    assert float(x.mean()) == pytest.approx(1.0, abs=0.02)
    assert float(x.var()) == pytest.approx(1 / (1 - 0.04 / 3.8), rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["sgld", "sghmc"])
def test_minibatches_draw_from_the_exact_posterior(kernel):
    model = LinearRegression(features=2, spread=2.0)
    data, _ = simulate(model, 100, seed=0)
    fit = stochastic_gradient.fit(
        model, data, kernel=kernel, batch_size=50, lr=0.05 if kernel == "sgld" else 0.02, num_samples=200,
        num_warmup=600, compile=False,
    )  # fmt: skip
    truth, x = model.posterior(data)["coef"], fit.draws["coef"].flatten(0, 1)
    assert float(((x.mean(0) - truth.mean) / truth.stddev).abs().max()) < 0.15
    assert float((x.std(0) / truth.stddev - 1).abs().max()) < 0.12


def test_running_moments_are_those_of_every_step():
    fit = stochastic_gradient.fit(
        gaussian, torch.tensor([1.0, 2.0], dtype=F), num_samples=300, thinning=1, num_chains=3, lr=0.1, **QUICK
    )
    x = fit.draws["x"].numpy()  # thinned by nothing: every step
    assert fit.state["mean"].numpy() == pytest.approx(x.mean(1), abs=1e-12)
    assert fit.state["square"].numpy() == pytest.approx((x**2).mean(1), abs=1e-12)


def test_a_killed_run_goes_on_to_the_same_draws(tmp_path):
    model = BayesianNeuralNetwork(hidden=(5,))
    data, _ = simulate(model, 60, seed=0)
    options = {"batch_size": 16, "num_warmup": 60, "thinning": 5, "num_chains": 2, "compile": False, "seed": 3}
    whole = stochastic_gradient.fit(model, data, num_samples=60, **options)
    file = tmp_path / "run.safetensors"
    stochastic_gradient.fit(model, data, num_samples=40, checkpoint=file, **options)
    resumed = stochastic_gradient.fit(model, data, num_samples=60, checkpoint=file, **options)
    extended = stochastic_gradient.extend(stochastic_gradient.fit(model, data, num_samples=25, **options), 35)
    for other in (resumed, extended):
        assert all(torch.equal(other.draws[site], value) for site, value in whole.draws.items())
        assert torch.equal(other.stats["lp"], whole.stats["lp"])
    with pytest.raises(ValueError, match=r"lr was None, is 0\.1"):
        stochastic_gradient.fit(model, data, num_samples=60, checkpoint=file, lr=0.1, **options)


def test_cycles_draw_only_where_steps_are_small():
    model = LinearRegression(features=1)
    data, _ = simulate(model, 40, seed=0)
    options = {"num_warmup": 100, "compile": False, "thinning": 4, "num_chains": 2}
    fit = stochastic_gradient.fit(model, data, schedule="cyclical", num_cycles=3, num_samples=30, lr=0.2, **options)
    assert fit.draws["coef"].shape == (2, 30, 2)
    assert float(fit.stats["step_size"].max()) <= 0.1
    with pytest.raises(Unsupported, match="planned to its end"):
        stochastic_gradient.extend(fit, 10)
    decay = stochastic_gradient.fit(model, data, schedule="decay", num_samples=30, lr=0.2, **options)
    assert (decay.stats["step_size"][0].diff() < 0).all()


def test_without_temperature_it_is_the_mode():
    model = LinearRegression(features=2)
    data, _ = simulate(model, 50, seed=0)
    fit = stochastic_gradient.fit(model, data, temperature=0.0, num_samples=50, num_warmup=400, compile=False, lr=0.1)
    assert torch.allclose(fit.draws["coef"][:, -1], model.posterior(data)["coef"].mean, atol=1e-6)


def test_a_chain_that_leaves_the_numbers_is_named():
    with pytest.raises(FloatingPointError, match=r"chain \d has left the numbers at site 'x'; lower lr, which is 50"):
        stochastic_gradient.fit(gaussian, torch.ones(3, dtype=F), kernel="sgld", lr=50.0, num_samples=200, **QUICK)


def test_rows_that_cannot_be_taken_apart_are_refused():
    with pytest.raises(Unsupported, match="a plain program"):
        stochastic_gradient.fit(gaussian, torch.ones(3, dtype=F), batch_size=2)
    with pytest.raises(ValueError, match="no kernel 'hmc'"):
        stochastic_gradient.fit(gaussian, torch.ones(3, dtype=F), kernel="hmc")


def test_minibatches_may_lie_on_disk(tmp_path):
    """Rows of a file that is mapped into memory: the same draws as from memory."""
    model = LinearRegression(features=2)
    data, _ = simulate(model, 200, seed=0)
    for name, value in {**data.given, **data.observed}.items():
        np.save(tmp_path / f"{name}.npy", value.numpy())
    mapped = {name: torch.from_numpy(np.load(tmp_path / f"{name}.npy", mmap_mode="c")) for name in ("x", "y")}
    options = {"batch_size": 20, "num_warmup": 100, "num_samples": 20, "num_chains": 2, "compile": False}
    there = stochastic_gradient.fit(model, Data.of(model, **mapped), **options)
    here = stochastic_gradient.fit(model, data, **options)
    assert torch.equal(there.draws["coef"], here.draws["coef"])
