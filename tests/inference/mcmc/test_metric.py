"""The metric that draws and gradients support."""

import pytest
import torch

from inference.mcmc import metric
from inference.mcmc.metric import Metric, learn, spread, whiten


def gaussian(n, covariance, seed=0):
    """Draws of N(0, covariance) and their gradients, each (n, dim)."""
    generator = torch.Generator().manual_seed(seed)
    factor = torch.linalg.cholesky(covariance)
    z = torch.randn(n, len(covariance), generator=generator, dtype=torch.float64)
    draws = z @ factor.mT
    return draws, -torch.cholesky_solve(draws.mT, factor).mT


def ill_conditioned():
    basis = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(9), dtype=torch.float64)).Q
    return basis * torch.logspace(-2, 2, 8, dtype=torch.float64) @ basis.mT


def test_few_draws_of_independent_scales_give_them_exactly():
    scales = torch.logspace(-2, 2, 12, dtype=torch.float64)  # covariance of condition 1e8
    for n in (2, 10, 59):
        found = learn(*gaussian(n, torch.diag(scales.square())))
        assert not found.dense
        torch.testing.assert_close(found.factor, scales)


def test_many_draws_give_a_covariance_of_condition_1e4():
    truth = ill_conditioned()
    draws, grads = gaussian(20_000, truth)
    found = learn(draws, grads)
    assert found.dense
    assert torch.equal(found.factor, found.factor.tril())
    whitened = torch.linalg.solve_triangular(found.factor, torch.linalg.cholesky(truth), upper=False)
    assert float(torch.linalg.cond(whitened)) < 1.25  # of 100 in the coordinates as they are


@pytest.mark.parametrize("n", [40, 400, 4000])
def test_a_covariance_is_shrunk_towards_its_diagonal(n):
    draws, grads = gaussian(n, ill_conditioned())
    found, sample = learn(draws, grads), torch.cov(draws.mT)
    covariance, share = found.factor @ found.factor.mT, 8 / (n + 8)
    torch.testing.assert_close(covariance.diagonal(), sample.diagonal())
    torch.testing.assert_close(covariance[0, 1], (1 - share) * sample[0, 1])
    assert 0 < share < 0.2


def test_many_coordinates_stay_diagonal(monkeypatch):
    monkeypatch.setattr(metric, "DENSE_UP_TO", 5)
    found = learn(*gaussian(5000, ill_conditioned()))
    assert not found.dense
    # Fisher's diagonal lies between the marginal and the conditional scales
    truth = ill_conditioned()
    expected = (truth.diagonal() / torch.linalg.inv(truth).diagonal()) ** 0.25
    torch.testing.assert_close(found.factor, expected, rtol=0.05, atol=0.0)


@pytest.mark.parametrize("n", [3, 100])
def test_draws_that_never_moved_give_a_finite_metric(n):
    still = torch.zeros(n, 4, dtype=torch.float64)
    for grads in (still, still + 1.0):
        factor = learn(still, grads).factor
        assert factor.isfinite().all()
        assert (factor.diagonal() if factor.ndim == 2 else factor).gt(0).all()
    draws, grads = gaussian(n, torch.eye(4, dtype=torch.float64))
    draws[0] = torch.nan
    assert learn(draws, grads).factor.isfinite().all()


@pytest.mark.parametrize("dim", [3, 40])
@pytest.mark.parametrize("dense", [False, True])
def test_spread_and_whiten_multiply_by_the_factor_and_its_transpose(dim, dense):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(7, dim, generator=generator, dtype=torch.float64)
    factor = torch.randn(dim, dim, generator=generator, dtype=torch.float64).tril()
    factor = factor if dense else factor.diagonal().clone()
    matrix = factor if dense else torch.diag(factor)
    assert Metric(factor).dense is dense
    torch.testing.assert_close(spread(factor, x), x @ matrix.mT)
    torch.testing.assert_close(whiten(factor, x), x @ matrix)
