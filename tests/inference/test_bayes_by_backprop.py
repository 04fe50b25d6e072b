"""Bayes by backprop: exact on linear-Gaussian models, Blundell's gradients, unbiased estimators, bounds that hold."""

import pyro
import pytest
import torch
from torch import nn

from inference import Unsupported, bayes_by_backprop
from inference.base import fresh
from inference.bayes_by_backprop import elbo_and_grad
from inference.bayes_by_backprop.layers import Layered
from inference.density.minibatch import Minibatches
from inference.predict import simulate
from ppmodels.base import Data
from ppmodels.regression.bnn import BayesianNeuralNetwork
from ppmodels.regression.linear import LinearRegression

F = torch.float64


@pytest.mark.parametrize("batch_size", [None, 30])
def test_on_a_linear_gaussian_model_it_is_exact(batch_size):
    """The mean is exact, and sigma_i^2 = 1 / Lambda_ii; the bound is below the evidence."""
    model = LinearRegression(features=2, spread=2.0)
    data, _ = simulate(model, 60, seed=0)
    fit = bayes_by_backprop.fit(model, data, batch_size=batch_size, num_particles=8, lr=0.05)
    truth = model.posterior(data)["coef"]
    precision = torch.linalg.inv(truth.covariance_matrix)
    assert float(((fit.state["loc"] - truth.mean) / truth.stddev).abs().max()) < 0.05
    assert float((fit.state["scale"] * precision.diagonal().sqrt() - 1).abs().max()) < 0.02
    assert fit.info["elbo"] - 4 * fit.info["elbo_se"] < float(model.log_evidence(data))
    assert fit.info["converged"]


def test_the_gradient_is_blundells_and_autograds():
    model = BayesianNeuralNetwork(hidden=(3,), noise=0.5)
    data, _ = simulate(model, 20, seed=0)
    with fresh(model, (data,)):
        target = Minibatches.of(model, (data,), {}, chains=5, batch_size=None, compile=False)
        phi = torch.randn(2, target.density.dim)
        eps = torch.randn(5, target.density.dim)
        value, grad = elbo_and_grad(target, None, phi, eps)
        free = phi.clone().requires_grad_()
        sigma = nn.functional.softplus(free[1])
        log_prob = torch.stack([target.density.log_prob(free[0] + sigma * e) for e in eps]).mean()
        elbo = log_prob + torch.distributions.Normal(free[0], sigma).entropy().sum()
        assert float(value) == pytest.approx(float(elbo.detach()), rel=1e-10)
        assert torch.allclose(grad, torch.autograd.grad(elbo, free)[0], atol=1e-9)


def test_minibatches_are_unbiased():
    """The mean over all batches of an epoch is the whole data's gradient."""
    model = BayesianNeuralNetwork(hidden=(3,), noise=0.5)
    data, _ = simulate(model, 24, seed=0)
    with fresh(model, (data,)):
        target = Minibatches.of(model, (data,), {}, chains=2, batch_size=6, compile=False)
        x = torch.randn(2, target.density.dim)
        parts = [target(index, x) for index in torch.randperm(24).split(6)]
        value, grad = Minibatches.of(model, (data,), {}, chains=2, batch_size=None, compile=False)(None, x)
        assert torch.allclose(torch.stack([v for v, _ in parts]).mean(0), value)
        assert torch.allclose(torch.stack([g for _, g in parts]).mean(0), grad)


@pytest.mark.parametrize(("rows", "own_rows"), [(24, False), (24, True), (23, False)])
def test_all_rows_are_told_from_batches_that_divide_them_or_not(rows, own_rows):
    model = BayesianNeuralNetwork(hidden=(3,), noise=0.5)
    data, _ = simulate(model, rows, seed=0)
    with fresh(model, (data,)):
        target = Minibatches.of(model, (data,), {}, chains=2, batch_size=6, own_rows=own_rows, compile=False)
        whole = Minibatches.of(model, (data,), {}, chains=2, batch_size=None, compile=False)
        x = torch.randn(2, target.density.dim)
        for told, known in zip(target.everything(x), whole(None, x), strict=True):
            assert torch.allclose(told, known)


@pytest.mark.parametrize("estimator", ["local", "flipout"])
def test_estimators_agree_and_are_less_noisy(estimator):
    """The same ELBO in expectation as drawing weights, with a gradient that varies less from step to step."""
    model = BayesianNeuralNetwork(features=2, hidden=(8,))
    data, _ = simulate(model, 40, seed=0)
    with fresh(model, (data,)):
        target = Minibatches.of(model, (data,), {}, chains=1, batch_size=None, compile=False)
        phi = torch.stack([0.3 * torch.randn(target.density.dim), torch.full((target.density.dim,), -1.5)])
        phi.requires_grad_()
        layered, number = Layered(model, target.density, data, estimator), 400
        ours = []
        for _ in range(number):
            loss = layered.loss(None, phi, 1)
            ours.append((-loss.detach(), torch.autograd.grad(loss, phi)[0][0]))
        plain = [elbo_and_grad(target, None, phi.detach(), torch.randn(1, target.density.dim)) for _ in range(number)]
    values, theirs = (torch.stack([v for v, _ in each]) for each in (ours, plain))
    error = ((values.var() + theirs.var()) / number).sqrt()
    assert float((values.mean() - theirs.mean()).abs()) < 4 * float(error)
    noise, before = (
        torch.stack([g.reshape(-1)[: phi.shape[1]] for _, g in each]).var(0).sum() for each in (ours, plain)
    )
    assert float(noise) < 0.8 * float(before)


@pytest.mark.slow
def test_pyros_own_guide_agrees():
    """AutoNormal by Pyro's SVI on the same model ends at the same normals."""
    model = LinearRegression(features=1, spread=2.0)
    data, _ = simulate(model, 40, seed=0)
    ours = bayes_by_backprop.fit(model, data, num_particles=8, lr=0.05)
    told = pyro.condition(model.model, data=dict(data.observed))
    with fresh(model, (data,)):
        guide = pyro.infer.autoguide.AutoNormal(told)
        elbo = pyro.infer.TraceMeanField_ELBO(num_particles=8, vectorize_particles=False)
        descent = pyro.infer.SVI(told, guide, pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.993}), elbo)
        for _ in range(600):
            descent.step(data)
        loc, scale = guide._get_loc_and_scale("coef")
    assert torch.allclose(ours.state["loc"], loc.detach(), atol=0.02)
    assert torch.allclose(ours.state["scale"], scale.detach(), rtol=0.05)


def test_layers_that_cannot_be_treated_are_named():
    network = nn.Sequential(nn.Linear(1, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 1))
    model = BayesianNeuralNetwork(network=network)
    data, _ = simulate(model, 10)
    with pytest.raises(Unsupported, match="layer '1' is LayerNorm, whose outputs are not a sum over its weights"):
        bayes_by_backprop.fit(model, data, estimator="local")
    line = LinearRegression()
    with pytest.raises(Unsupported, match="this model has no network"):
        bayes_by_backprop.fit(line, simulate(line, 10)[0], estimator="flipout")
    with pytest.raises(ValueError, match="no estimator 'antithetic'"):
        bayes_by_backprop.fit(model, data, estimator="antithetic")


def test_a_convolution_is_treated_as_a_linear_layer():
    network = nn.Sequential(nn.Conv1d(1, 2, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(8, 1))
    model = BayesianNeuralNetwork(network=network, noise=0.5)
    data = Data(12, {"x": torch.randn(12, 1, 4, dtype=F)}, {"y": torch.randn(12, dtype=F)})
    for estimator in ("local", "flipout"):
        fit = bayes_by_backprop.fit(model, data, estimator=estimator, num_steps=20, num_samples=5)
        assert fit.draws["0.weight"].shape == (1, 5, 2, 1, 3)


def test_a_loss_that_is_not_a_number_is_refused():
    model = BayesianNeuralNetwork(likelihood="poisson", hidden=(3,))
    data, _ = simulate(model, 10)
    broken = Data(10, {"x": torch.full((10, 1), 1e300, dtype=F)}, {"y": data.observed["y"].to(F)})
    with pytest.raises((FloatingPointError, ValueError), match=r"loss is|no start with a finite log density"):
        bayes_by_backprop.fit(model, broken, num_steps=50, compile=False, lr=1e3)


def test_a_killed_run_goes_on_to_the_same_normals(tmp_path):
    model = BayesianNeuralNetwork(hidden=(4,))
    data, _ = simulate(model, 40, seed=0)
    options = {"batch_size": 10, "compile": False, "seed": 2}
    whole = bayes_by_backprop.fit(model, data, num_steps=600, **options)
    file = tmp_path / "run.safetensors"
    bayes_by_backprop.fit(model, data, num_steps=400, checkpoint=file, **options)
    resumed = bayes_by_backprop.fit(model, data, num_steps=600, checkpoint=file, **options)
    assert torch.equal(resumed.state["loc"], whole.state["loc"])
    assert all(torch.equal(resumed.draws[site], value) for site, value in whole.draws.items())
