"""Yacht on its published splits: full-batch HMC over chains in lockstep, beside a Gaussian process."""

import pytest

from inference import mcmc
from inference.outcomes import log_predictive, outcomes
from ppmodels.datasets.splits import Splits
from ppmodels.regression.bnn import BayesianNeuralNetwork
from tests.shared import shared


@pytest.mark.slow
def test_hmc_predicts_the_first_five_splits():
    """Test log likelihood above -0.5 on average; Monte Carlo dropout is published at -1.25, a GP near -0.3."""
    splits, scores, errors = Splits.read(shared("data", "uci", "yacht")), [], []
    model = BayesianNeuralNetwork(features=6, hidden=(50,), scale=(6**0.5, 1.0))
    for k in range(5):
        split = splits[k]
        fit = mcmc.fit(model, split.train, num_chains=4, num_warmup=150, num_samples=100, seed=k)
        scores.append(split.log_likelihood(log_predictive(fit, split.test)))
        errors.append(split.rmse(outcomes(fit, split.test).location))
        print(f"split {k}: log likelihood {scores[-1]:.3f}, rmse {errors[-1]:.3f}", flush=True)
    assert sum(scores) / 5 > -0.5
    assert min(scores) > -0.5
    assert sum(errors) / 5 < 0.5
