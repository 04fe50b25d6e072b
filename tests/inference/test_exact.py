"""Exact draws have the posterior's moments, and leave nothing behind."""

import pyro
import pytest
import torch

from inference import exact
from inference.base import Unsupported
from ppmodels.base import Data
from ppmodels.clustering.gmm import GaussianMixture
from ppmodels.datasets import old_faithful
from ppmodels.regression.linear import LinearRegression


def regression():
    x = old_faithful().observed["x"]
    data = Data(len(x), {"x": x[:, :1] - 3.5}, {"y": x[:, 1]})
    return LinearRegression(features=1, noise=6.0, spread=100.0), data


def test_draws_have_the_posteriors_moments():
    model, data = regression()
    fit = exact.fit(model, data, num_samples=20000, seed=3)
    coef, site = fit.draws["coef"], model.posterior(data)["coef"]
    assert coef.shape == (1, 20000, 2)
    assert coef.dtype == torch.float64
    error = site.stddev / 20000**0.5
    assert ((coef[0].mean(0) - site.mean).abs() < 4 * error).all()
    ratio = coef[0].T.cov() / site.covariance_matrix
    assert ((ratio.diagonal() - 1).abs() < 4 * (2 / 20000) ** 0.5).all()
    assert fit.info["log_evidence"] == pytest.approx(float(model.log_evidence(data)), abs=1e-12)
    assert fit.method == "exact"


def test_same_seed_same_draws_and_nothing_left_behind():
    model, data = regression()
    torch.manual_seed(7)
    before, store = torch.get_rng_state(), dict(pyro.get_param_store())
    one, two = exact.fit(model, data, seed=1), exact.fit(model, data, seed=1)
    assert torch.equal(one.draws["coef"], two.draws["coef"])
    assert not torch.equal(one.draws["coef"], exact.fit(model, data, seed=2).draws["coef"])
    assert torch.equal(torch.get_rng_state(), before)
    assert dict(pyro.get_param_store()) == store
    assert torch.get_default_dtype() == torch.float32


def test_what_has_no_posterior_is_refused():
    data = old_faithful()
    with pytest.raises(Unsupported, match="GaussianMixture has no posterior in closed form"):
        exact.fit(GaussianMixture(), data)
    with pytest.raises(Unsupported, match="<lambda> has no posterior"):
        exact.fit(lambda: None)
    with pytest.raises(ValueError, match="num_samples must be at least 1"):
        exact.fit(*regression(), num_samples=0)
