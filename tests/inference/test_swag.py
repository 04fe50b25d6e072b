"""SWAG: moments that are numpy's, steps whose wandering is the posterior's, and draws of the published Gaussian."""

import numpy as np
import pytest
import torch

from inference import Unsupported, swag
from inference.predict import simulate
from inference.swag import Walk
from ppmodels.kernels.gp import GaussianProcess
from ppmodels.regression.linear import LinearRegression

F = torch.float64


class Recorded(Walk):
    """A walk along a known path."""

    def _gradient(self, number, x):
        change = torch.randn(x.shape, dtype=F, generator=torch.Generator().manual_seed(number))
        self.path.append((x + self.lr * change).numpy())
        return change


def test_running_moments_are_numpys():
    walk = Recorded(None, torch.zeros(2, 3, dtype=F), 10, 2, 0, 0, rank=4, lr=0.5)
    walk.path = []

    class Bar:
        add_task = update = staticmethod(lambda *a, **k: None)

    walk.go(30, 2, Bar())
    snapshots = np.stack(walk.path[1::2])  # every second step
    assert walk.mean.numpy() == pytest.approx(snapshots.mean(0), abs=1e-12)
    assert walk.square.numpy() == pytest.approx((snapshots**2).mean(0), abs=1e-12)
    deviations = torch.stack(walk.deviations, 1)
    assert deviations.shape == (2, 4, 3)
    x = walk.draw(200_000, 0.5, torch.Generator().manual_seed(0))
    for chain in range(2):
        variance = torch.as_tensor((snapshots[:, chain] ** 2).mean(0) - snapshots[:, chain].mean(0) ** 2)
        wanted = 0.5 * (torch.diag(variance) + deviations[chain].T @ deviations[chain] / 3)
        assert torch.allclose(torch.cov(x[chain].T), wanted, rtol=0.03, atol=0.02)


def test_it_wanders_as_widely_as_the_posterior_is():
    model = LinearRegression(features=2, spread=2.0)
    data, _ = simulate(model, 200, seed=0)
    fit = swag.fit(model, data, num_snapshots=300, rank=0, num_samples=2000, num_steps=3000, compile=False)
    x, truth = fit.draws["coef"][0], model.posterior(data)["coef"]
    assert float(((x.mean(0) - truth.mean) / truth.stddev).abs().max()) < 0.3
    assert float((x.std(0) / truth.stddev - 1).abs().max()) < 0.3


def test_rows_that_hang_together_are_refused():
    model = GaussianProcess()
    data, _ = simulate(model, 20, seed=0)
    with pytest.raises(Unsupported, match="no minibatches"):
        swag.fit(model, data)
