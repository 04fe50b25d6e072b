"""Over data sets drawn from a model, the truth is as likely to have any rank among the draws as any other."""

import pytest
import torch

from inference import exact, mcmc
from inference.check import simulation_based_calibration
from ppmodels.clustering.gmm import GaussianMixture
from ppmodels.regression.linear import LinearRegression


def test_exact_draws_are_calibrated_and_narrowed_ones_are_not():
    def narrowed(model, data, seed):
        fit = exact.fit(model, data, seed=seed, num_samples=99)
        coef = fit.draws["coef"]
        fit.draws["coef"] = coef.mean(1, keepdim=True) + 0.6 * (coef - coef.mean(1, keepdim=True))
        return fit

    right = simulation_based_calibration(LinearRegression(), exact.fit, num_datasets=200, rows=10)
    assert right.p_value > 0.01
    assert simulation_based_calibration(LinearRegression(), narrowed, num_datasets=200, rows=10).p_value < 1e-4


@pytest.mark.slow
def test_the_default_method_is_calibrated_on_the_mixture_with_ordered_means():
    """Ordered, so that a component means the same in the truth and in every draw; many short chains, as by default."""
    model = GaussianMixture(components=2, dim=2, ordered=True, spread=2.0)

    def fit(model, data, seed):
        return mcmc.fit(model, data, seed=seed, num_chains=64, num_warmup=250, num_samples=100)

    found = simulation_based_calibration(model, fit, num_datasets=100, rows=40, seed=7)
    assert found.ranks.keys() >= {"weights", "loc", "precision", "off_diagonal"}
    assert found.ranks["loc"].shape == (100, 2, 2)
    assert torch.isfinite(found.ranks["loc"].double()).all()
    assert found.p_value > 0.01, {site: p.tolist() for site, p in found.p_values.items()}
