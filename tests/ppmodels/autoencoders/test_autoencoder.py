"""Autoencoders against principal components, against the best denoiser, against a dictionary that is known."""

import pytest
import torch
from torch import nn

from inference.training import Plateau, Training, warmup_cosine
from ppmodels.autoencoders.autoencoder import Autoencoder, LinearAutoencoder, SparseAutoencoder, deep_autoencoder
from ppmodels.autoencoders.infomax import best_decoder, entropy, infomax_bound, mutual_information
from ppmodels.autoencoders.principal import linear_denoiser, principal_angles, principal_components
from ppmodels.nn.mlp import mlp

pytestmark = pytest.mark.usefixtures("double_precision")


def trained(model, x, lr=0.02, num_steps=3000, **options):
    options = {"plateau": Plateau(1e-12, 2), "compile": "auto", "rows": len(x)} | options
    Training(num_steps, lr, **options).run(lambda i: model.loss(x if i is None else x[i]), model)
    return model


def rows(scales, count=300):
    """Centred rows whose principal axes are turned away from the columns."""
    x = (
        torch.randn(count, len(scales))
        * torch.tensor(scales)
        @ torch.linalg.qr(torch.randn(len(scales), len(scales))).Q
    )
    return x - x.mean(0)


@pytest.mark.parametrize("tied", [True, False])
def test_a_linear_autoencoder_spans_the_principal_components(tied):
    """Its loss is the sum of the other eigenvalues, and not before; the weights are another basis."""
    x = rows([2.0, 1.5, 0.6, 0.4, 0.3])
    axes, values = principal_components(x, 2)
    model = trained(LinearAutoencoder(5, 2, tied), x)
    assert float(model.loss(x).detach()) == pytest.approx(float(values[2:].sum()), rel=1e-8)
    assert float(model.loss(x).detach()) >= float(values[2:].sum()) * (1 - 1e-12)
    assert float(principal_angles(model.encoder.weight.detach(), axes).max()) < 1e-3
    assert len(list(model.parameters())) == (1 if tied else 2)
    if not tied:
        w = model.encoder.weight.detach()
        assert (w @ w.mT - torch.eye(2)).abs().max() > 0.05


def test_as_many_latents_as_columns_lose_nothing():
    x = rows([2.0, 1.0, 0.5])
    for tied in (True, False):
        assert float(trained(LinearAutoencoder(3, 3, tied), x).loss(x).detach()) < 1e-8


def test_principal_angles_are_exact_where_they_are_small():
    turn = torch.tensor([[1.0, 1e-9, 0.0]])
    assert float(principal_angles(torch.eye(3)[:1], turn)) == pytest.approx(1e-9, rel=1e-6)
    assert float(principal_angles(torch.eye(3)[:1], torch.eye(3)[1:2])) == pytest.approx(torch.pi / 2)


def test_a_deep_autoencoder_beats_any_linear_one_on_a_curve():
    t = torch.rand(400) * 2 - 1
    x = torch.stack([(3 * t).sin(), (3 * t).cos(), t], 1)
    x = x - x.mean(0)
    least = float(principal_components(x, 1)[1][1:].sum())
    model = trained(deep_autoencoder(3, (32, 16), 1), x, lr=0.01, num_steps=1000)
    assert float(model.loss(x).detach()) < 0.02 * least


def test_more_price_is_fewer_active_units():
    x = dictionary_rows()[0]
    share = []
    for sparsity in (0.0, 0.03, 0.1, 0.4, 5.0):
        torch.manual_seed(1)
        share.append(trained(SparseAutoencoder(16, 32, sparsity), x, num_steps=400, batch_size=250).active(x))
    assert share == sorted(share, reverse=True)
    assert share[0] > 0.25 > 0.15 > share[2]
    assert share[-1] == 0


def test_a_wanted_activity_is_met():
    x = rows([1.0] * 6)
    model = Autoencoder(nn.Sequential(nn.Linear(6, 12), nn.Sigmoid()), nn.Linear(12, 6), sparsity=100.0, activity=0.1)
    trained(model, x, num_steps=1200)
    torch.testing.assert_close(model.encode(x).mean(0).detach(), torch.full((12,), 0.1), rtol=0, atol=0.01)


def dictionary_rows(count=2000, dim=16, atoms=24):
    """Rows of one or two of more atoms than columns."""
    generator = torch.Generator().manual_seed(5)
    true = nn.functional.normalize(torch.randn(atoms, dim, generator=generator), dim=1)
    on = torch.rand(count, atoms, generator=generator) < 1.2 / atoms
    return (on * (0.5 + torch.rand(count, atoms, generator=generator))) @ true, true


def test_an_overcomplete_dictionary_is_recovered():
    x, true = dictionary_rows()
    torch.manual_seed(2)
    model = SparseAutoencoder(16, 32, sparsity=0.1)
    trained(model, x, lr=0.01, num_steps=3000, batch_size=250, schedule=warmup_cosine(100, 3000), plateau=None)
    nearest = (true @ model.dictionary.mT).max(1)[0]
    assert float((nearest > 0.95).double().mean()) >= 0.9, nearest


def test_a_denoiser_of_gaussian_rows_is_the_best_linear_map():
    """s^2 / (s^2 + sigma^2) along every axis, and by it the score of the noisy law."""
    scales, noise = torch.tensor([2.0, 1.0, 0.5]), 0.7
    x = torch.randn(2000, 3)
    x = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(x.mT.cov(correction=0))).mT * scales
    model = Autoencoder(nn.Linear(3, 3, bias=False), nn.Identity(), noise=noise)
    trained(model, x, lr=0.05, num_steps=12_000, batch_size=500, plateau=Plateau(1e-9, 4))
    best = linear_denoiser(scales.square().diag(), noise)
    torch.testing.assert_close(best.diagonal(), scales**2 / (scales**2 + noise**2))
    learned = model.encoder.weight.detach()
    torch.testing.assert_close(learned.diagonal(), best.diagonal(), rtol=0.01, atol=0)
    assert float((learned - best).abs().max()) < 0.02
    law = torch.distributions.MultivariateNormal(torch.zeros(3), (scales**2 + noise**2).diag())
    y = torch.randn(5, 3, requires_grad=True)
    (score,) = torch.autograd.grad(law.log_prob(y).sum(), y)
    torch.testing.assert_close((y.detach() @ best.mT - y.detach()) / noise**2, score)


def test_infomax_is_bounded_and_met():
    """On a table: any decoder shows less than I(X; Z) <= H(X), the posterior shows it all."""
    prior = torch.rand(6).softmax(0)
    channel = torch.rand(6, 4).pow(3)
    channel = channel / channel.sum(1, keepdim=True)
    exact = mutual_information(prior, channel)
    direct = (prior[:, None] * channel * (channel / (prior @ channel)).log()).sum()
    torch.testing.assert_close(exact, direct, rtol=0, atol=1e-12)
    torch.testing.assert_close(infomax_bound(prior, channel, best_decoder(prior, channel)), exact, rtol=0, atol=1e-12)
    for _ in range(20):
        assert infomax_bound(prior, channel, torch.rand(4, 6).softmax(1)) < exact < entropy(prior)
    copy = torch.eye(6)
    torch.testing.assert_close(infomax_bound(prior, copy, best_decoder(prior, copy)), entropy(prior))
    logits = torch.zeros(4, 6, requires_grad=True)
    search = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        search.zero_grad()
        value = -infomax_bound(prior, channel, logits.softmax(1))
        value.backward()
        return value

    search.step(loss)
    assert float(exact + loss().detach()) < 1e-6


def test_what_cannot_be_is_one_line():
    with pytest.raises(ValueError, match="must not be negative"):
        Autoencoder(nn.Identity(), nn.Identity(), noise=-1.0)
    with pytest.raises(ValueError, match=r"the decoder makes \(3,\) a row, and x has \(4,\)"):
        Autoencoder(nn.Linear(4, 2), nn.Linear(2, 3)).loss(torch.zeros(5, 4))
    with pytest.raises(ValueError, match="no activation 'sine'"):
        mlp([2, 3], "sine")
    with pytest.raises(ValueError, match="latents must be between"):
        principal_components(torch.zeros(3, 2), 3)
