"""The variational autoencoder against closed forms, against Pyro, and against itself."""

import math

import pyro
import pytest
import torch
from pyro.infer import TraceMeanField_ELBO
from torch import nn
from torch.distributions import Normal, kl_divergence

from inference import svi
from inference.base import fresh, joint
from inference.predict import simulate
from inference.svi.objective import Objective, Survey
from ppmodels.autoencoders.bounds import elbo, log_likelihood, log_weights, normal_kl, score_gradient
from ppmodels.autoencoders.collapse import diagnose
from ppmodels.autoencoders.hierarchical_vae import HierarchicalVAE
from ppmodels.autoencoders.linear_gaussian import LinearGaussian
from ppmodels.autoencoders.vae import VariationalAutoencoder
from ppmodels.base import Data
from ppmodels.nn.mlp import mlp

pytestmark = pytest.mark.usefixtures("double_precision")


def lines(rows=200, dim=5, latents=2, noise=0.3):
    """Rows near a plane."""
    generator = torch.Generator().manual_seed(3)
    w = torch.randn(dim, latents, generator=generator)
    return torch.randn(rows, latents, generator=generator) @ w.mT + noise * torch.randn(rows, dim, generator=generator)


def solved(x, latents=2, turn=None):
    """A linear autoencoder set to the maximum of the likelihood and to its exact posterior, and that law.

    turn: a rotation of the latents, after which independent normals are no longer the posterior.
    """
    law = LinearGaussian.maximum(x, latents)
    if turn is not None:
        law = LinearGaussian(law.weight @ turn, law.bias, law.variance)
    model = VariationalAutoencoder(dim=x.shape[1], latents=latents, network="linear")
    with torch.no_grad():
        decoder, encoder = model.decoder.network[0], model.encoder.network[0]
        decoder.weight.copy_(law.weight)
        decoder.bias.copy_(law.bias)
        model.decoder.log_noise.copy_(law.variance.log() / 2)
        _, covariance = law.posterior(x)
        to_mean = covariance @ law.weight.mT / law.variance
        encoder.weight.copy_(torch.cat([to_mean, torch.zeros_like(to_mean)]))
        # Of all independent normals the nearest has the precision's diagonal, not the covariance's.
        scale = -covariance.inverse().diagonal().log() / 2
        encoder.bias.copy_(torch.cat([-to_mean @ law.bias, scale]))
    return model, law


def test_the_divergence_is_torchs_and_a_mean_of_draws():
    loc, log_variance = torch.randn(4), torch.randn(4)
    q, p = Normal(loc, (log_variance / 2).exp()), Normal(0.0, 1.0)
    torch.testing.assert_close(normal_kl(loc, log_variance), kl_divergence(q, p), rtol=0, atol=1e-10)
    z = q.sample((1_000_000,))
    ratio = q.log_prob(z) - p.log_prob(z)
    error = ratio.std(0) / 1000
    assert ((ratio.mean(0) - normal_kl(loc, log_variance)).abs() < 4 * error).all()


def test_the_evidence_is_the_elbo_and_a_divergence():
    """log p(x) = ELBO + KL(q || p(z | x)) for any q; nothing is left at the posterior."""
    x = lines()
    law = LinearGaussian.maximum(x, 2)
    whole = torch.distributions.MultivariateNormal(law.bias, law.weight @ law.weight.mT + law.variance * torch.eye(5))
    torch.testing.assert_close(law.log_likelihood(x), whole.log_prob(x), rtol=0, atol=1e-10)
    mean, covariance = law.posterior(x)
    torch.testing.assert_close(law.elbo(x, mean, covariance), law.log_likelihood(x), rtol=0, atol=1e-10)
    root = torch.randn(2, 2)
    q = torch.distributions.MultivariateNormal(torch.randn(200, 2), root @ root.mT + 0.1 * torch.eye(2))
    posterior = torch.distributions.MultivariateNormal(mean, covariance)
    bound = law.elbo(x, q.mean, q.covariance_matrix)
    torch.testing.assert_close(bound + kl_divergence(q, posterior), law.log_likelihood(x), rtol=0, atol=1e-8)


def test_bounds_rise_from_the_elbo_to_the_exact_likelihood():
    x = lines(60)
    turn = torch.linalg.qr(torch.randn(2, 2)).Q
    model, law = solved(x, turn=turn)
    exact = law.log_likelihood(x).mean()
    with torch.no_grad():
        told, kl = elbo(model, x, 4000)
    closed = law.elbo(x, model.encode(x), model.encoder(x).variance[0].detach().diag()).mean()
    error = told.std() / math.sqrt(60 * 4000)
    assert abs(float((told - kl.sum(-1)).mean() - closed)) < 5 * float(error)
    bounds = [float(torch.stack([log_likelihood(model, x, k) for _ in range(1200 // k)]).mean()) for k in (1, 5, 50)]
    assert float(closed) - 0.02 < bounds[0]
    assert bounds[0] < bounds[1] < bounds[2] <= float(exact) + 0.002
    assert float(log_likelihood(model, x, 5000).mean()) == pytest.approx(float(exact), abs=2e-3)


def test_without_a_rotation_independent_normals_are_the_posterior():
    x = lines(60)
    model, law = solved(x)
    torch.testing.assert_close(log_weights(model, x, 3), law.log_likelihood(x).expand(3, -1), rtol=0, atol=1e-9)


def test_a_number_of_draws_is_kept_to(monkeypatch):
    """Neither rounded to a batch nor cut at one."""
    model, seen = solved(lines(4))[0], []
    monkeypatch.setattr(
        "ppmodels.autoencoders.bounds.log_weights", lambda m, x, k: seen.append(k) or torch.zeros(k, len(x))
    )
    for number in (1, 99, 100, 250):
        seen.clear()
        assert log_likelihood(model, lines(4), number).abs().max() < 1e-12
        assert sum(seen) == number


def test_a_trained_linear_autoencoder_is_probabilistic_pca():
    x = lines(300)
    model = VariationalAutoencoder(dim=5, latents=2, network="linear")
    fit = svi.fit(model, Data.of(model, x=x), lr=0.05, num_steps=4000, num_samples=5, seed=1)
    best = LinearGaussian.maximum(x, 2)
    own = fit.model.decoder
    weight, bias = own.network[0].weight.detach(), own.network[0].bias.detach()
    law = LinearGaussian(weight, bias, own.log_noise.detach().exp() ** 2)
    top = best.log_likelihood(x).mean()
    assert float(top - law.log_likelihood(x).mean()) < 1e-3
    q = fit.model.encoder(x)
    bound = law.elbo(x, q.mean.detach(), torch.diag_embed(q.variance.detach())).mean()
    assert float(top - bound) < 1e-3
    cosines = torch.linalg.svdvals(torch.linalg.qr(weight).Q.mT @ torch.linalg.qr(best.weight).Q)
    assert float(cosines.min()) > 0.999
    assert fit.info["executor"] in ("recorded", "compiled")


def test_reparametrised_and_score_gradients_agree():
    """Both unbiased for the closed-form gradient of the bound; the reparametrised one varies less."""
    x = lines(3)
    model, law = solved(x)
    encoder = model.encoder.network[0]
    with torch.no_grad():
        encoder.bias += torch.tensor([0.3, -0.2, 0.1, 0.2])
    loc, log_scale = encoder(x).chunk(2, -1)
    exact = law.elbo(x, loc, torch.diag_embed((2 * log_scale).exp())).sum()
    (true,) = torch.autograd.grad(exact, encoder.bias)
    spread = []
    for which in (0, 1):
        grads = []
        for _ in range(400):
            value = score_gradient(model, x, 5)[which].mean()
            grads.append(torch.autograd.grad(value, encoder.bias)[0])
        grads = torch.stack(grads)
        assert ((grads.mean(0) - true).abs() < 4.5 * grads.std(0) / 20).all()
        spread.append(grads.var(0).sum())
    assert spread[0] < spread[1] / 3


def objective(model, data, loss=None, seed=4):
    """The objective of svi, in a clean world that the caller leaves."""
    with fresh(model, (data,), seed=seed) as own:
        survey = Survey.of(joint(own, (data,), {}), (data,), {})
        return Objective.of(own, (data,), {}, "hand", survey, 1, loss)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli", "continuous_bernoulli", "poisson"])
def test_the_bound_of_svi_is_pyros(likelihood):
    """Same draws, same number: Pyro's estimator with closed-form divergences."""
    model = VariationalAutoencoder(likelihood=likelihood)
    data, _ = simulate(model, 12)
    ours, theirs = objective(model, data), objective(model, data, TraceMeanField_ELBO())
    values = []
    for one in (ours, theirs):
        with fresh(seed=3, model=None):
            values.append(one.loss(torch.arange(7)))
    torch.testing.assert_close(values[0], values[1], rtol=1e-12, atol=0)


def test_beta_one_is_the_elbo_bit_for_bit_and_more_beta_is_less_divergence():
    x = lines(200)
    model = VariationalAutoencoder(dim=5, latents=2, noise=0.5, hidden=16)
    data, options = Data.of(model, x=x), {"num_steps": 300, "lr": 0.015, "num_samples": 2}
    plain = svi.fit(model, data, **options)
    fits = {b: svi.fit(model, data, loss=svi.WeightedELBO(beta=b), **options) for b in (1.0, 4.0, 16.0)}
    assert all(torch.equal(v, fits[1.0].state["parameters"][n]) for n, v in plain.state["parameters"].items())
    parts = [elbo(fit.model, x, 200) for fit in fits.values()]
    told, kl = [float(p.detach().mean()) for p, _ in parts], [float(k.detach().sum(-1).mean()) for _, k in parts]
    assert kl[0] > kl[1] + 0.3 > kl[2] + 0.6
    assert told[0] > told[1] + 0.3 > told[2] + 0.6


def test_capacity_and_free_bits_are_reached():
    x = lines(200)
    model = VariationalAutoencoder(dim=5, latents=3, noise=0.5, hidden=16)
    data, options = Data.of(model, x=x), {"num_steps": 500, "lr": 0.03, "num_samples": 2}
    held = svi.fit(model, data, loss=svi.WeightedELBO(beta=100.0, capacity=1.5), **options)
    assert float(elbo(held.model, x)[1].sum(-1).mean().detach()) == pytest.approx(1.5, abs=0.1)
    options |= {"lr": 0.01, "num_steps": 700}
    free = svi.fit(model, data, loss=svi.WeightedELBO(beta=50.0, free_bits=0.4), **options)
    torch.testing.assert_close(elbo(free.model, x)[1].mean(0).detach(), torch.full((3,), 0.4), rtol=0, atol=0.08)
    with pytest.raises(ValueError, match="choose one"):
        svi.WeightedELBO(capacity=1.0, free_bits=0.1)
    with pytest.raises(ValueError, match="beta must be at least 0"):
        svi.WeightedELBO(beta=lambda step: -1.0)


def test_the_weight_is_annealed_step_by_step_in_recorded_steps_too():
    """With beta 0 up to the last step, only that step knows the divergence."""
    x, seen = lines(50), []
    model = VariationalAutoencoder(dim=5, latents=2, noise=0.5)
    data = Data.of(model, x=x)

    def late(step):
        seen.append(step)
        return 0.0 if step < 29 else 1e6

    fits = [
        svi.fit(model, data, loss=svi.WeightedELBO(beta=late), num_steps=30, num_samples=2, compile=c)
        for c in ("auto", False)
    ]
    assert [fit.info["executor"] for fit in fits] == ["recorded", "eager"]
    for fit in fits:
        assert float(fit.trace["elbo"][28]) > -1e5 > float(fit.trace["elbo"][29])
    torch.testing.assert_close(fits[0].trace["elbo"], fits[1].trace["elbo"], rtol=1e-6, atol=0)
    assert set(seen) == set(range(30))


def test_the_importance_weighted_bound_of_svi():
    """Its mean over draws is that of the plain functions; with one draw it is the ELBO; minibatches are scaled."""
    x = lines(20)
    model, law = solved(x, turn=torch.linalg.qr(torch.randn(2, 2)).Q)
    data = Data.of(model, x=x)
    one = objective(model, data, svi.ImportanceELBO(20))
    with torch.no_grad():
        ours = torch.stack([-one.loss(None) for _ in range(400)])
        theirs = torch.stack([log_likelihood(model, x, 20).sum() for _ in range(400)])
        halves = torch.stack([-(one.loss(torch.arange(10)) + one.loss(torch.arange(10, 20))) / 2 for _ in range(400)])
    error = float((ours.var() / 400 + theirs.var() / 400).sqrt())
    assert abs(float(ours.mean() - theirs.mean())) < 4 * error
    assert abs(float(ours.mean() - halves.mean())) < 4 * error
    assert float(ours.mean()) < float(law.log_likelihood(x).sum())

    def whole():
        pyro.sample("w", pyro.distributions.Normal(0.0, 1.0))

    with pytest.raises(svi.Unsupported, match="'w' has one value for all rows"):
        svi.ImportanceELBO(3).differentiable_loss(whole, whole)


def test_depth_one_is_the_variational_autoencoder():
    x = lines(30)
    plain, deep = VariationalAutoencoder(dim=5), HierarchicalVAE(dim=5, depth=1)
    state = {"network." + n.removeprefix("network."): v for n, v in plain.encoder.state_dict().items()}
    deep.encoders[0].load_state_dict(state)
    deep.decoder.load_state_dict(plain.decoder.state_dict())
    values = []
    for model in (plain, deep):
        one = objective(model, Data.of(model, x=x))
        with fresh(None, seed=3):
            values.append(one.loss(None))
    assert torch.equal(values[0], values[1])


def test_a_hierarchys_bound_is_a_likelihood_less_one_divergence_a_layer():
    x = lines(30)
    model = HierarchicalVAE(dim=5, depth=3)
    assert len(model.encoders) == len(model.steps) + 1 == model.depth  # made here, so that the copy has the same
    assert model.decoder.family == "gaussian"
    one = objective(model, Data.of(model, x=x))
    with fresh(None, seed=3):
        value = -one.loss(None)
    with fresh(None, seed=3):
        q = [encoder(x) for encoder in model.encoders]
        z3, z2, z1 = (q[k].rsample() for k in (2, 1, 0))
    p = [model.steps[0](z2), model.steps[1](z3), pyro.distributions.Normal(torch.zeros(2), 1.0).to_event(1)]
    kl = sum(kl_divergence(a, b).sum() for a, b in zip(q, p, strict=True))
    torch.testing.assert_close(value, model.decoder(z1).log_prob(x).sum() - kl, rtol=1e-10, atol=0)


def test_collapse_is_found_and_an_answer_to_it_helps():
    x = lines(200)
    model = VariationalAutoencoder(dim=5, latents=3, noise=0.5, hidden=16)
    data, options = Data.of(model, x=x), {"num_steps": 400, "lr": 0.03, "num_samples": 2}
    fits = {b: svi.fit(model, data, loss=svi.WeightedELBO(beta=b), **options) for b in (0.5, 500.0)}
    well, lost = (diagnose(fit.model, x) for fit in fits.values())
    assert lost.collapsed
    assert "latents 0, 1, 2 are their prior: anneal beta" in lost.message()
    assert lost.information < 0.05
    assert int(well.active.sum()) >= 2
    assert well.information > 2
    assert not well.collapsed
    again = diagnose(svi.fit(model, data, loss=svi.WeightedELBO(beta=500.0, free_bits=0.5), **options).model, x)
    assert not again.collapsed
    with pytest.raises(ValueError, match="at least two rows"):
        diagnose(fits[0.5].model, x[:1])


def test_any_modules_serve_and_the_callers_are_left_alone():
    x = (lines(40) > 0).double()
    modules = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 4)), mlp([2, 9, 5], "tanh")
    before = modules[1][0].weight.clone()
    model = VariationalAutoencoder(dim=5, likelihood="bernoulli", modules=modules)
    fit = svi.fit(model, Data.of(model, x=x), num_steps=50, num_samples=3)
    assert torch.equal(modules[1][0].weight, before)
    assert not torch.equal(fit.model.decoder.network[0].weight, before)
    assert fit.model.encode(x).shape == (40, 2)
    assert fit.model.decode(fit.model.encode(x)).shape == (40, 5)
    assert fit.predict()["x"].shape == (1, 3, 40, 5)


def test_convolutions_keep_rows_and_shapes():
    x = torch.rand(6, 2 * 5 * 7)
    model = VariationalAutoencoder(
        dim=70,
        latents=3,
        likelihood="continuous_bernoulli",
        network="convolutional",
        shape=(2, 5, 7),
        hidden=4,
        layers=2,
    )
    assert model.encode(x).shape == (6, 3)
    assert model.decode(torch.randn(4, 6, 3)).shape == (4, 6, 70)
    torch.testing.assert_close(model.decode(model.encode(x))[2:3], model.decode(model.encode(x[2:3])))
    fit = svi.fit(model, Data.of(model, x=x), num_steps=5, num_samples=2)
    assert fit.info["executor"] in ("recorded", "compiled")


def test_wrong_data_is_one_clear_line():
    x = torch.rand(6, 4)

    def refused(message, x, **fields):
        model = VariationalAutoencoder(dim=4, **fields)
        with pytest.raises(ValueError, match=message) as caught:
            svi.fit(model, Data(len(x), {}, {"x": x}), num_steps=2, num_samples=2)
        assert "\n" not in str(caught.value)

    bad = x.clone()
    bad[2, 1] = 1.5
    refused(r"^x is 1.5 in row 2, column 1; it must be between 0 and 1; divide", bad, likelihood="continuous_bernoulli")
    refused(r"^x is .* in row 0, column 0; it must be 0 or 1; make it so", x, likelihood="bernoulli")
    refused("it must be a count", x, likelihood="poisson")
    bad[2, 1] = math.nan
    refused("x is nan in row 2, column 1; it must be a finite number", bad)
    refused(r"x must be \(rows, 4\), images laid out as rows; it is \(6, 1, 2, 2\)", x.reshape(6, 1, 2, 2))
    refused("x has no rows", x[:0])
    for fields, message in (
        ({"latents": 0}, "latents must be at least 1"),
        ({"likelihood": "beta"}, "no likelihood 'beta'"),
        ({"network": "lstm"}, "no network 'lstm'"),
        ({"network": "convolutional"}, r"need a shape .* of 4"),
        ({"noise": -1.0}, "noise must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            VariationalAutoencoder(**({"dim": 4} | fields))
    with pytest.raises(ValueError, match="halvings do not fit"):
        _ = VariationalAutoencoder(dim=4, network="convolutional", shape=(1, 2, 2), layers=4).encoder


def test_a_batch_of_one_row_learns():
    x = lines(3)
    model = VariationalAutoencoder(dim=5)
    fit = svi.fit(model, Data.of(model, x=x), batch_size=1, num_steps=7, num_samples=2)
    assert fit.trace["elbo"].isfinite().all()
    one = svi.fit(model, Data.of(model, x=x[:1]), num_steps=3, num_samples=2)
    assert one.draws["z"].shape == (1, 2, 1, 2)


def test_a_bound_that_is_no_number_names_step_and_parameter():
    model = VariationalAutoencoder(dim=5, noise=1e-200)
    with pytest.raises(FloatingPointError, match=r"^step 1: the loss is (inf|nan)"):
        svi.fit(model, Data.of(model, x=lines(3)), num_steps=3, num_samples=2)
