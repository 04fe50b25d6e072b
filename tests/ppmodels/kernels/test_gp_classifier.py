"""Gaussian process classification beside scikit-learn's Laplace approximation, and beside the posterior itself."""

import math

import pyro
import pytest
import torch
from sklearn.datasets import make_circles
from sklearn.gaussian_process import GaussianProcessClassifier as Reference
from sklearn.gaussian_process import kernels

from inference import laplace, mcmc, mode
from inference.predict import simulate
from ppmodels.base import Data
from ppmodels.kernels._squash import mean_sigmoid
from ppmodels.kernels.gp_classifier import GaussianProcessClassifier


def problem(rows=40):
    generator = torch.Generator().manual_seed(0)
    x = 6 * torch.rand(rows, 1, generator=generator, dtype=torch.float64) - 3
    y = (torch.rand(rows, generator=generator) < torch.sigmoid(3 * (1.5 * x[:, 0]).sin())).double()
    return x, y


SCALES = {"lengthscale": torch.tensor([0.9], dtype=torch.float64), "amplitude": torch.tensor(1.7, dtype=torch.float64)}


def at_fixed_scales(model, data):
    """The program with its scales given: a plain Pyro program, as any back end takes it."""
    return pyro.condition(model.model, data={**SCALES, **data.observed})


def test_laplace_at_fixed_scales_is_that_of_rasmussen_and_williams():
    model, (x, y) = GaussianProcessClassifier(), problem()
    data, new = Data.of(model, x=x, y=y), torch.linspace(-4, 4, 21, dtype=torch.float64)[:, None]
    kernel = kernels.ConstantKernel(1.7**2) * kernels.RBF(0.9)
    reference = Reference(kernel, optimizer=None, max_iter_predict=200).fit(x.numpy(), y.numpy())
    program = at_fixed_scales(model, data)
    white = mode.fit(program, data, seed=0, num_restarts=1).draws["white"][0, 0]
    f = 1.7 * model._factor(x, SCALES["lengthscale"]) @ white
    pi = torch.as_tensor(reference.base_estimator_.pi_)  # the probabilities at the mode, by Newton in f
    assert torch.allclose(torch.sigmoid(f), pi, atol=1e-4)
    fit = laplace.fit(program, data, seed=0, num_samples=2000, num_restarts=1)
    prior = torch.distributions.LogNormal(torch.tensor([1.0, 2.0], dtype=torch.float64).log(), 0.5)
    of_scales = prior.log_prob(torch.tensor([0.9, 1.7], dtype=torch.float64)).sum()  # they were given, and so scored
    evidence = float(fit.info["log_evidence"] - of_scales)
    assert evidence == pytest.approx(reference.log_marginal_likelihood_value_, abs=1e-3)
    draws = {"white": fit.draws["white"][0]} | {n: v.expand(2000, *v.shape) for n, v in SCALES.items()}
    each = model.probability(draws, data, new)  # (2000, 21)
    theirs = torch.as_tensor(reference.predict_proba(new.numpy())[:, 1])
    error = each.std(0) / 2000**0.5
    assert ((each.mean(0) - theirs).abs() < 4 * error + 3e-3).all()  # theirs approximates the average of sigmoid


def test_every_draw_of_the_function_is_smooth_and_new_points_continue_it():
    model, (x, y) = GaussianProcessClassifier(jitter=1e-8), problem()
    data = Data.of(model, x=x, y=y)
    white = torch.randn(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    draws = {"white": white, **SCALES}
    f = 1.7 * model._factor(x, SCALES["lengthscale"]) @ white
    assert torch.allclose(model.probability(draws, data, x), torch.sigmoid(f), atol=1e-4)  # at the rows: f itself
    far = model.probability(draws, data, torch.tensor([[100.0]]))
    assert far.item() == pytest.approx(0.5, abs=1e-6)


def test_mean_of_the_logistic():
    mean, sd = torch.tensor([0.0, 1.0, -2.0]).double(), torch.tensor([3.0, 0.5, 2.0]).double()
    grid = torch.linspace(-12, 12, 20001, dtype=torch.float64)
    weight = (-grid.square() / 2).exp() / math.sqrt(2 * math.pi)
    truth = torch.trapezoid(torch.sigmoid(mean[:, None] + sd[:, None] * grid) * weight, grid)
    assert torch.allclose(mean_sigmoid(mean, sd), truth, atol=1e-5)


@pytest.mark.slow
def test_laplace_and_mcmc_tell_the_same_classes_on_circles():
    points, label = make_circles(60, factor=0.4, noise=0.1, random_state=0)
    x, y = torch.as_tensor(points), torch.as_tensor(label).double()
    model = GaussianProcessClassifier(dim=2, lengthscale=0.7)
    data = Data.of(model, x=x[:40], y=y[:40])
    found = {}
    for name, fit in (
        ("laplace", laplace.fit(model, data, seed=0, num_samples=200)),
        ("mcmc", mcmc.fit(model, data, seed=0, num_chains=8, num_samples=100, num_warmup=200, compile=False)),
    ):
        draws = {site: value.flatten(0, 1)[::7] for site, value in fit.draws.items()}
        found[name] = model.probability(draws, data, x[40:]).mean(0)
        assert ((found[name] > 0.5) == (y[40:] > 0.5)).double().mean() > 0.9, name
    assert (found["laplace"] - found["mcmc"]).abs().mean() < 0.1


def test_simulated_classes_and_bad_input():
    data, latents = simulate(GaussianProcessClassifier(dim=2), 15)
    assert set(data.observed["y"].tolist()) <= {0.0, 1.0}
    assert latents["white"].shape == (15,)
    for fields, words in (
        ({"dim": 0}, "dim must be"),
        ({"family": "cubic"}, "family must"),
        ({"jitter": 0.0}, "jitter"),
    ):
        with pytest.raises(ValueError, match=words):
            GaussianProcessClassifier(**fields)
    x, y = problem(10)
    twice = Data.of(GaussianProcessClassifier(), x=torch.cat([x, x[:3]]), y=torch.cat([y, y[:3]]))
    assert (
        mode.fit(GaussianProcessClassifier(), twice, seed=0, num_restarts=1).draws["white"].isfinite().all()
    )  # duplicated points
