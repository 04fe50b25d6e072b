"""LFADS: its bounds in their order, the linear case against quadrature, a start that is used, Lorenz's rates."""

import math

import pyro
import pytest
import torch

from inference import em, svi
from inference.predict import simulate
from inference.svi import ImportanceELBO, WeightedELBO
from ppmodels.base import Data
from ppmodels.population._inputs import InferredInputs
from ppmodels.population.gpfa import GaussianProcessFactorAnalysis
from ppmodels.population.lfads import LatentFactorDynamics

F64 = torch.float64


def log_ratio(model, data, number):
    """log p(y, latents) - log q(latents) at draws of q, (K, R)."""
    program = pyro.condition(model.model, data=dict(data.observed))
    with torch.no_grad():
        return ImportanceELBO(number).log_ratio(program, model.guide, (data,), {})[0]


@pytest.fixture(scope="module")
def fitted():
    model = LatentFactorDynamics(neurons=8, bins=12, state=6, controls=1)
    data, _ = simulate(model, 24, seed=2)
    loss = WeightedELBO(beta=lambda step: min(1.0, (step + 1) / 10))
    fit = svi.fit(model, data, num_steps=25, compile=False, num_samples=20, seed=1, loss=loss)
    return fit, data


def test_bounds_rise_with_the_number_of_draws(fitted):
    fit, data = fitted
    torch.manual_seed(0)
    found = log_ratio(fit.model, data, 1000)  # (K, R)
    elbo = found.mean(0).sum()
    some = (found.unflatten(0, (20, 50)).logsumexp(1) - math.log(50)).mean(0).sum()
    many = (found.unflatten(0, (2, 500)).logsumexp(1) - math.log(500)).mean(0).sum()
    assert elbo < some < many


def test_latents_have_their_shapes_and_the_rates_theirs(fitted):
    fit, data = fitted
    assert fit.draws["start"].shape == (1, 20, 24, 6)
    assert fit.draws["input"].shape == (1, 20, 24, 12, 1)
    one = {name: value[0, 0] for name, value in fit.draws.items()}
    with torch.no_grad():
        assert fit.model.log_rates(one["start"], one["input"]).shape == data.observed["y"].shape


def test_inferred_inputs_score_what_they_draw(fitted):
    """The density of a draw, made as it is drawn, is that of the same values given anew."""
    fit, data = fitted
    model = fit.model
    mean, _, told = model.encoder(data.observed["y"])
    law = InferredInputs(model.encoder, model.generator, told, mean)
    with torch.no_grad():
        value = law.rsample()
        torch.testing.assert_close(law.log_prob(value), law.log_prob(value.clone()))


def test_a_linear_generator_is_bounded_by_quadrature():
    """No inputs and no noise: log p(y) is an integral over two numbers; the ELBO falls short by KL(q, posterior)."""
    model = LatentFactorDynamics(neurons=6, bins=8, state=2, controls=0, generator_kind="linear")
    data, _ = simulate(model, 5, seed=3)
    fit = svi.fit(model, data, num_steps=30, compile=False, num_samples=10, seed=1)
    model, y = fit.model, data.observed["y"]
    axis = torch.linspace(-7, 7, 281, dtype=F64)
    grid = torch.cartesian_prod(axis, axis)  # (G, 2)
    cell = 2 * math.log(float(axis[1] - axis[0]))
    with torch.no_grad():
        rate = model.log_rates(grid) + math.log(model.bin_size)  # (G, T, N)
        prior = torch.distributions.Normal(0.0, 1.0).log_prob(grid).sum(-1)
        likelihood = (
            torch.einsum("rtn,gtn->rg", y, rate) - rate.exp().sum((-2, -1)) - torch.lgamma(y + 1).sum((-2, -1))[:, None]
        )
        joint = likelihood + prior  # (R, G)
        exact = joint.logsumexp(-1) + cell
        mean, scale, _ = model.encoder(y)
        q = torch.distributions.Normal(mean[:, None], scale[:, None]).log_prob(grid).sum(-1)
        gap = (q.exp() * (q - joint + exact[:, None])).sum(-1) * math.exp(cell)
    torch.manual_seed(1)
    ratio = log_ratio(model, data, 20_000)
    elbo, error = ratio.mean(0), ratio.std(0) / 20_000**0.5
    assert bool((gap > 0).all())
    assert bool(((elbo - (exact - gap)).abs() < 4 * error + 1e-6).all())


@pytest.mark.slow
def test_the_start_is_not_ignored():
    g = torch.Generator().manual_seed(0)
    phase = 6.28 * torch.rand(40, 1, 1, generator=g, dtype=F64)
    turn = torch.sin(phase + 0.5 * torch.arange(10, dtype=F64)[:, None] + torch.arange(12, dtype=F64))
    y = torch.poisson(2 * (1.2 * turn).exp(), generator=g)  # a rotation at a random phase, 2 spikes a bin
    model = LatentFactorDynamics.for_data(y, state=8, factors=2, controls=0)
    data = Data.of(model, y=y)
    loss = WeightedELBO(beta=lambda step: min(1.0, (step + 1) / 100))
    fit = svi.fit(model, data, num_steps=150, compile=False, num_samples=2, seed=1, lr=0.02, loss=loss)
    with torch.no_grad():
        mean, scale, _ = fit.model.encoder(data.observed["y"])
    divergence = (0.5 * (mean.square() + scale.square() - 1) - scale.log()).sum(-1)
    assert float(divergence.mean()) > 0.1


def test_what_is_no_count_is_named():
    model = LatentFactorDynamics()
    data, _ = simulate(model, 5, seed=1)
    data.observed["y"][1, 2, 3] = 0.5
    with pytest.raises(ValueError, match="trial 1, bin 2, neuron 3 is no whole number"):
        svi.fit(model, data, num_steps=2)


def lorenz(trials, bins, seed=0, step=0.006, skip=4):
    """Standardised paths of Lorenz's system from random starts, (R, T, 3)."""
    g = torch.Generator().manual_seed(seed)
    x = 5 * torch.randn(trials, 3, generator=g, dtype=F64) + torch.tensor([0.0, 0.0, 25.0], dtype=F64)
    path = []
    for i in range(500 + bins * skip):
        u, v, w = x.unbind(-1)
        x = x + step * torch.stack([10 * (v - u), u * (28 - w) - v, u * v - 8 / 3 * w], -1)
        if i >= 500 and (i - 500) % skip == 0:
            path.append(x)
    path = torch.stack(path, 1)
    return (path - path.mean((0, 1))) / path.std((0, 1))


@pytest.mark.slow
def test_rates_of_lorenz_are_told_better_than_by_gpfa():
    """30 neurons, 500 trials from different starts; the share of the true rates' variance that is explained."""
    path = lorenz(400, 40)
    g = torch.Generator().manual_seed(1)
    loading = torch.randn(3, 30, generator=g, dtype=F64) * 0.6
    rate = (path @ loading + math.log(8.0)).exp()  # Hz
    y = torch.poisson(rate * 0.02, generator=g)
    model = LatentFactorDynamics.for_data(y, bin_size=0.02, state=48, factors=3, controls=0, hidden=32)
    data = Data.of(model, y=y)
    loss = WeightedELBO(beta=lambda step: min(1.0, (step + 1) / 400))
    fit = svi.fit(model, data, num_steps=2500, batch_size=100, num_samples=4, seed=0, lr=0.008, loss=loss)
    with torch.no_grad():
        mean, _, _ = fit.model.encoder(y)
        ours = fit.model.log_rates(mean).exp()
    gpfa = GaussianProcessFactorAnalysis.for_data(y.sqrt(), bin_size=0.02, latents=3, timescale=0.05)
    roots = Data.of(gpfa, y=y.sqrt())
    theta = {k: v[0, 0] for k, v in em.fit(gpfa, roots, num_restarts=1, num_steps=60, tol=1e-6).draws.items()}
    mean = gpfa.path(theta, roots).mean @ theta["loading"].mT + theta["offset"]
    theirs = _rescaled(mean, rate)
    explained = [
        1 - (found - rate).square().sum() / (rate - rate.mean((0, 1))).square().sum() for found in (ours, theirs)
    ]
    assert float(explained[0]) > float(explained[1]) > 0.1


def _rescaled(mean, rate):
    """The best quadratic of each neuron's predicted root of counts: more than fair, as it sees the true rates."""
    out = torch.empty_like(rate)
    for n in range(rate.shape[-1]):
        design = torch.stack([mean[..., n].flatten() ** k for k in range(3)], -1)
        out[..., n] = (design @ torch.linalg.lstsq(design, rate[..., n].flatten()[:, None]).solution).reshape(
            rate.shape[:2]
        )
    return out
