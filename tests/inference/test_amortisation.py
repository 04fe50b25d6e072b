"""The gap of a learned guide, where every part of it is known."""

import math

import pytest
import torch
from torch import nn

from inference import Unsupported, em, svi
from inference.check.amortisation import amortisation
from ppmodels.autoencoders.linear_gaussian import LinearGaussian
from ppmodels.autoencoders.vae import VariationalAutoencoder
from ppmodels.base import Data

LOG_2PI = math.log(2 * math.pi)


@pytest.mark.slow
def test_gaps_are_those_of_the_closed_forms():
    """A linear decoder whose latents are turned: the posterior is known, and so is the best of its family."""
    torch.manual_seed(0)
    x = torch.randn(200, 2, dtype=torch.float64) @ torch.tensor([[2.0, 0, 1, 1], [0, 1, -1, 1]]).double()
    x = x + 0.8 * torch.randn(200, 4, dtype=torch.float64)
    model = VariationalAutoencoder(dim=4, latents=2, network="linear")
    fit = svi.fit(model, Data.of(model, x=x), num_steps=300, lr=0.02, num_samples=5)
    found = amortisation(fit, [3, 7], num_samples=4000, num_chains=4)
    own = fit.model.decoder
    law = LinearGaussian(
        own.network[0].weight.detach(), own.network[0].bias.detach(), own.log_noise.detach().exp() ** 2
    )
    rows = x[[3, 7]]
    mean, covariance = law.posterior(rows)
    table = found.table
    assert list(table.index) == [3, 7]
    assert table["log_evidence"].to_numpy() == pytest.approx(law.log_likelihood(rows).numpy(), abs=0.02)
    best = law.elbo(rows, mean, torch.diag(1 / covariance.inverse().diagonal()))
    assert table["best"].to_numpy() == pytest.approx(best.numpy(), abs=0.1)
    q = fit.model.encoder(rows)
    bound = law.elbo(rows, q.mean.detach(), torch.diag_embed(q.variance.detach()))
    assert table["elbo"].to_numpy() == pytest.approx(bound.numpy(), abs=5 * math.sqrt(1 / 4000) * 3)
    draws = found.posterior.draws["z"].flatten(0, 1)
    error = covariance.diagonal().sqrt() * 5 / math.sqrt(len(draws) / 4)
    assert ((draws.mean(0) - mean).abs() < error).all()
    assert (table["khat"] < 0.5).all()
    apart = ((q.mean.detach() - mean) / covariance.diagonal().sqrt()).abs().amax(1)
    assert table["distance"].to_numpy() == pytest.approx(apart.numpy(), abs=0.15)
    tree = found.posterior.to_datatree()
    assert tree["posterior"]["z"].dims[:3] == ("chain", "draw", "rows")
    with pytest.raises(ValueError, match="rows are numbers from 0 to 199"):
        amortisation(fit, [200])


class Fold(nn.Module):
    """|z - 1/2|: every image has two codes, of unequal weight."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, z):
        return self.gain * (z - 0.5).abs()


def test_the_best_normal_is_in_the_heavier_mode_and_no_worse_than_the_guides_own():
    """One normal in one mode of weight w has the evidence less log w^-1, whichever the climb from nowhere finds."""
    encoder = nn.Linear(1, 2).double()
    with torch.no_grad():
        encoder.weight.zero_()
        encoder.bias.copy_(torch.tensor([-1.4, math.log(0.3)]))
    x = torch.full((2, 1), 2.0, dtype=torch.float64)
    model = VariationalAutoencoder(dim=1, latents=1, noise=0.2, modules=(encoder, Fold()))
    fit = svi.fit(model, Data.of(model, x=x), num_steps=1, lr=1e-9, num_samples=2)
    row = amortisation(fit, [1], num_samples=4000, num_chains=2, num_warmup=150).table.loc[1]
    z = torch.linspace(-8, 8, 200_001, dtype=torch.float64)
    log_joint = torch.distributions.Normal((z - 0.5).abs(), 0.2).log_prob(x[0]) - 0.5 * (z.square() + LOG_2PI)
    mass = log_joint.exp() * (z[1] - z[0])
    evidence, weight = float(mass.sum().log()), float(mass[z < 0.5].sum() / mass.sum())
    assert row["best"] == pytest.approx(evidence + math.log(weight), abs=0.03)
    assert row["best"] > row["elbo"]
    assert row["amortisation"] > 0.05


def test_only_a_guide_of_its_own_is_amortised():
    from inference.predict import simulate
    from ppmodels.clustering.gmm import GaussianMixture

    data, _ = simulate(GaussianMixture(), 40)
    with pytest.raises(Unsupported, match="with its own guide"):
        amortisation(em.fit(GaussianMixture(), data), [0])
