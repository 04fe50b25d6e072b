"""Sequences in, outcomes out: conjugate last layer, classes of whole sequences, counts over time."""

import math

import pytest
import torch

from inference import laplace, mcmc, svi
from ppmodels.base import Data
from ppmodels.sequence.sequence_regression import SequenceRegression

pytestmark = pytest.mark.usefixtures("double_precision")


@pytest.mark.parametrize(("kind", "pool"), [("s4d", "none"), ("s4", "last"), ("transformer", "mean")])
def test_the_last_layer_by_laplace_is_the_conjugate_one(kind, pool):
    """Gaussian values of known noise over fixed features are linear regression: mean, covariance and predictive."""
    model = SequenceRegression(features=2, kind=kind, pool=pool, width=4, noise=0.3, scale=2.0)
    fixed, x = model.fixed_at(model.body), torch.randn(30, 6, 2)
    y = torch.randn(30, 6, 1) if pool == "none" else torch.randn(30, 1)
    fit = laplace.fit(fixed, Data.of(fixed, x=x, y=y), num_samples=4000, num_restarts=1)

    with torch.no_grad():
        features = fixed.pooled(x).reshape(-1, 4)
        ones = torch.ones(len(features), 1)
        design = torch.cat([features, ones], 1)  # weight, bias
        prior = torch.tensor([4 / 2.0**2] * 4 + [1 / 2.0**2])
        precision = design.T @ design / 0.3**2 + prior.diag()
        mean = torch.linalg.solve(precision, design.T @ y.reshape(-1) / 0.3**2)
        new = torch.randn(5, 9, 2)  # longer than ever
        seen = torch.cat([fixed.pooled(new), torch.ones(*fixed.pooled(new).shape[:-1], 1)], -1)
        spread = 0.3**2 + (seen @ precision.inverse() * seen).sum(-1)
    torch.testing.assert_close(fit.state["loc"], mean, atol=1e-6, rtol=0)
    factor = fit.state["precision_tril"]
    torch.testing.assert_close(factor @ factor.T, precision, atol=1e-6, rtol=1e-6)
    drawn = fit.predict(Data(5, {"x": new}))["y"][0, ..., 0]
    error = 5 * spread.sqrt() / 4000**0.5
    assert ((drawn.mean(0) - seen @ mean).abs() < error).all()
    assert (drawn.var(0) / spread - 1).abs().max() < 5 * math.sqrt(2 / 4000)


def test_classes_of_whole_sequences():
    """Slow or fast waves in noise: `svi` learns the network, and the predictive of new, longer ones is right."""

    def waves(rows, times):
        y, t = torch.randint(2, (rows,)), torch.arange(times) / 4
        phase = 2 * math.pi * torch.rand(rows, 1)
        x = torch.sin((1 + 2 * y[:, None]) * t + phase) + 0.3 * torch.randn(rows, times)
        return x[..., None], y

    x, y = waves(200, 24)
    model = SequenceRegression(features=1, dim=2, emission="categorical", pool="mean", width=8)
    fit = svi.fit(model, Data.of(model, x=x, y=y), num_steps=200, lr=0.02, num_samples=50, compile=False)
    assert fit.trace["elbo"][-20:].mean() > fit.trace["elbo"][:20].mean() + 50
    new, truth = waves(200, 40)
    drawn = fit.predict(Data(200, {"x": new}))["y"][0].double().mean(0)  # share of the draws that say "fast"
    assert ((drawn > 0.5) == truth.bool()).double().mean() > 0.95


def test_counts_over_time_by_laplace_are_those_of_mcmc():
    """Poisson counts driven by a leaky integral of the input, over a fixed state space: two back ends agree."""
    x = torch.randn(40, 10, 1)
    model = SequenceRegression(features=1, dim=1, emission="poisson", width=3)
    fixed = model.fixed_at(model.body)
    with torch.no_grad():
        rate = (fixed.pooled(x) @ torch.tensor([0.8, -0.5, 0.3]) + 0.5).exp()
    data = Data.of(fixed, x=x, y=torch.poisson(rate)[..., None])
    normal = laplace.fit(fixed, data, num_samples=2000, num_restarts=1).draws
    draws = mcmc.fit(fixed, data, num_samples=500, num_warmup=300, num_chains=8, compile=False).draws
    for site, values in normal.items():
        mean, sd = draws[site].mean((0, 1)), draws[site].std((0, 1))
        assert ((values.mean((0, 1)) - mean).abs() < 0.25 * sd).all(), site
        assert (values.std((0, 1)) / sd - 1).abs().max() < 0.15, site


def test_one_clear_line_for_what_cannot_be():
    with pytest.raises(ValueError, match="no pool 'max'"):
        SequenceRegression(pool="max")
    model = SequenceRegression(features=2)
    fine = torch.zeros(3, 5, 2)
    for x, y, message in (
        (fine[..., :1], fine[..., :1], r"x must be \(rows, time, 2\); it is \(3, 5, 1\)"),
        (fine[:, :0], fine[:, :0, :1], r"x must be \(rows, time, 2\); it is \(3, 0, 2\)"),
        (fine.index_fill(1, torch.tensor(4), torch.inf), fine[..., :1], "x is inf in row 0, time 4, column 0"),
        (fine, fine[:, :4, :1], r"y must be \(rows, 5, 1\); it is \(3, 4, 1\)"),
        (fine, fine[..., :1] + torch.nan, "y is nan in row 0, time 0, column 0; it must be a finite number"),
    ):
        with pytest.raises(ValueError, match=message):
            svi.fit(model, Data.of(model, x=x, y=y))
