"""Hidden Markov models: against every path written out, a textbook's earthquakes, GLMs without states, calibration."""

import itertools

import pytest
import torch

from inference import em, mcmc
from inference.check import simulation_based_calibration
from inference.predict import simulate
from ppmodels.base import Data
from ppmodels.population import hidden_chain
from ppmodels.population.glm_hmm import RegressionHiddenMarkovModel
from ppmodels.population.hmm import HiddenMarkovModel

F64 = torch.float64
EARTHQUAKES = (  # of magnitude 7 or more, a year from 1900 to 2006 (USGS)
    13, 14, 8, 10, 16, 26, 32, 27, 18, 32, 36, 24, 22, 23, 22, 18, 25, 21, 21, 14, 8, 11, 14, 23, 18, 17, 19, 20, 22,
    19, 13, 26, 13, 14, 22, 24, 21, 22, 26, 21, 23, 24, 27, 41, 31, 27, 35, 26, 28, 36, 39, 21, 17, 22, 17, 19, 15, 34,
    10, 15, 22, 18, 15, 20, 15, 22, 19, 16, 30, 27, 29, 23, 20, 16, 21, 21, 25, 16, 18, 15, 18, 14, 10, 15, 8, 15, 6,
    11, 8, 7, 18, 16, 13, 12, 13, 20, 15, 16, 12, 18, 15, 16, 13, 15, 16, 11, 11,
)  # fmt: skip


def tables(bins=8, states=3, trials=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    initial = torch.randn(states, generator=g, dtype=F64).log_softmax(-1)
    transition = torch.randn(states, states, generator=g, dtype=F64).log_softmax(-1)
    return initial, transition, torch.randn(trials, bins, states, generator=g, dtype=F64)


@pytest.mark.parametrize("bins", [1, 2, 5, 8])
def test_forward_backward_and_viterbi_are_brute_force(bins):
    initial, transition, observed = tables(bins)
    paths = torch.tensor(list(itertools.product(range(3), repeat=bins)))  # (3^T, T)
    score = initial[paths[:, 0]] + transition[paths[:, :-1], paths[:, 1:]].sum(-1)
    score = score + observed[:, torch.arange(bins), paths].sum(-1)  # (R, 3^T)
    weight = score.softmax(-1)
    state, moves, value = hidden_chain.posterior(initial, transition, observed)
    torch.testing.assert_close(value, score.logsumexp(-1), rtol=0, atol=1e-10)
    exact = torch.stack([(weight[:, :, None] * (paths == s)).sum(1) for s in range(3)], -1)
    torch.testing.assert_close(state, exact, rtol=0, atol=1e-10)
    for s, r in itertools.product(range(3), repeat=2):
        number = ((paths[:, :-1] == s) & (paths[:, 1:] == r)).sum(-1)
        torch.testing.assert_close(moves[s, r], (weight * number).sum(), rtol=0, atol=1e-10)
    best, height = hidden_chain.viterbi(initial, transition, observed)
    torch.testing.assert_close(height, score.max(-1).values, rtol=0, atol=1e-10)
    assert torch.equal(best, paths[score.argmax(-1)])
    filtered = hidden_chain.filtered(initial, transition, observed)
    torch.testing.assert_close(filtered[:, -1].logsumexp(-1), value, rtol=0, atol=1e-10)


def test_a_long_recording_and_impossible_moves_stay_finite():
    initial, transition, observed = tables(3001, trials=1)
    value = hidden_chain.log_likelihood(initial, transition, 300 * observed)
    slow = hidden_chain.filtered(initial, transition, 300 * observed)[:, -1].logsumexp(-1)
    torch.testing.assert_close(value, slow, rtol=1e-12, atol=0)
    (barred,) = hidden_chain.logarithms(torch.eye(3, dtype=F64))
    state, moves, value = hidden_chain.posterior(initial, barred, observed)
    assert bool(state.isfinite().all() & moves.isfinite().all() & value.isfinite().all())


@pytest.mark.parametrize(
    ("states", "height", "rates"),
    [(1, -391.92, [19.36]), (2, -341.88, [15.42, 26.02]), (3, -328.53, [13.13, 19.71, 29.71])],
)
def test_earthquakes_from_several_starts(states, height, rates):
    """Zucchini and MacDonald (2009), table 3.1 for two and three states with a free start."""
    y = torch.tensor(EARTHQUAKES, dtype=F64)[None, :, None]
    model = HiddenMarkovModel.for_data(y, bin_size=1.0, states=states)
    fit = em.fit(model, Data.of(model, y=y), num_restarts=5)
    assert fit.info["log_likelihood"] == pytest.approx(height, abs=0.005)
    assert sum(run["log_likelihood"] > height - 0.01 for run in fit.info["restarts"]) >= 3
    torch.testing.assert_close(fit.draws["rate"].reshape(-1), torch.tensor(rates, dtype=F64), rtol=0, atol=0.01)
    assert float(fit.trace["log_likelihood"].diff().min()) > -1e-9


@pytest.mark.parametrize("emission", ["poisson", "bernoulli"])
def test_baum_welch_climbs_and_finds_states(emission):
    model = HiddenMarkovModel(neurons=8, states=3, bins=30, emission=emission, bin_size=0.02)
    data, truth = simulate(model, 30, seed=2)
    plain = em.fit(model, data, num_restarts=1, num_steps=25, accelerate=False)
    assert float(plain.trace["log_likelihood"].diff().min()) > -1e-9
    fit = em.fit(model, data, num_restarts=5)
    assert fit.trace["log_likelihood"][-1] > model.e_step(truth, data)[1]
    theta, truth = {k: v[0, 0] for k, v in fit.draws.items()}, model.relabel(truth)
    torch.testing.assert_close(theta["transition"], truth["transition"], rtol=0, atol=0.15)
    q, value = model.e_step(theta, data)
    torch.testing.assert_close(model.bound(q, theta, data), value, rtol=1e-12, atol=0)
    inside = model.state_probabilities(theta, data)
    torch.testing.assert_close(inside.sum(-1), torch.ones(30, 30, dtype=F64))
    agree = (model.most_probable_states(theta, data) == inside.argmax(-1)).to(F64).mean()
    assert float(agree) > 0.9


def test_missing_bins_are_summed_out():
    model = HiddenMarkovModel(neurons=3, states=2, bins=12)
    data, truth = simulate(model, 5, seed=1)
    y = torch.cat([data.observed["y"], torch.full((5, 3, 3), torch.nan, dtype=F64)], 1)
    longer = HiddenMarkovModel(neurons=3, states=2, bins=15, gaps=True)
    one, other = model.e_step(truth, data)[1], longer.e_step(truth, Data.of(longer, y=y))[1]
    torch.testing.assert_close(one, other, rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="trial 0, bin 12, neuron 0 is missing; say gaps=True"):
        em.fit(HiddenMarkovModel(neurons=3, states=2, bins=15), Data(5, {}, {"y": y}))


def test_more_than_one_spike_is_no_bernoulli():
    model = HiddenMarkovModel(neurons=2, states=2, bins=6, emission="bernoulli")
    data, _ = simulate(model, 5, seed=1)
    data.observed["y"][3, 2, 1] = 2.0
    with pytest.raises(ValueError, match="trial 3, bin 2, neuron 1 is more than one spike"):
        em.fit(model, data)


@pytest.mark.parametrize("emission", ["poisson", "bernoulli"])
def test_glm_hmm_finds_what_each_state_does_about_the_stimulus(emission):
    model = RegressionHiddenMarkovModel(neurons=3, states=2, features=2, bins=60, emission=emission, stay=20.0)
    data, truth = simulate(model, 40 if emission == "poisson" else 120, seed=3)
    fit = em.fit(model, data, num_restarts=4)
    assert fit.info["converged"]
    assert fit.trace["log_likelihood"][-1] > model.e_step(truth, data)[1]
    assert (
        float(em.fit(model, data, num_restarts=1, num_steps=15, accelerate=False).trace["log_likelihood"].diff().min())
        > -1e-8
    )
    found, truth = fit.draws["weights"][0, 0], model.relabel(truth)["weights"]
    assert float((found - truth).abs().max()) < 0.3
    theta = {k: v[0, 0] for k, v in fit.draws.items()}
    q, value = model.e_step(theta, data)
    torch.testing.assert_close(model.bound(q, theta, data), value, rtol=1e-12, atol=0)


def test_glm_hmm_of_one_state_is_a_glm():
    """Its score equations: what was seen less what is expected is orthogonal to every feature."""
    model = RegressionHiddenMarkovModel(neurons=2, states=1, features=3, bins=20)
    data, _ = simulate(model, 30, seed=5)
    weights = em.fit(model, data, num_restarts=1).draws["weights"][0, 0, 0]
    x = torch.cat([torch.ones(30, 20, 1, dtype=F64), data.given["x"]], -1)
    left = torch.einsum("rtq,rtn->qn", x, data.observed["y"] - 0.05 * (x @ weights.mT).exp())
    assert float(left.abs().max()) < 1e-6


@pytest.mark.slow
def test_glm_hmm_is_calibrated_up_to_the_order_of_states():
    model = RegressionHiddenMarkovModel(neurons=1, states=2, features=1, bins=20, stay=8.0)

    def fit(model, data, seed):
        return mcmc.fit(model, data, seed=seed, num_chains=32, num_warmup=200, num_samples=50)

    found = simulation_based_calibration(model, fit, num_datasets=60, rows=15, seed=3, statistics=model.relabel)
    assert found.ranks["weights"].shape == (60, 2, 1, 2)
    assert found.p_value > 0.01, {site: p.tolist() for site, p in found.p_values.items()}


def test_the_tree_speaks_of_states_neurons_and_trials():
    model = HiddenMarkovModel()
    data, _ = simulate(model, 6, seed=1)
    tree = em.fit(model, data, num_restarts=1, num_steps=4).to_datatree(prior=0)
    assert "state" in tree["posterior"]["rate"].dims
    assert "neuron" in tree["posterior"]["rate"].dims
    assert tree["log_likelihood"]["y"].dims == ("chain", "draw", "trial")
