import math

import pytest
import torch

from inference import laplace, mcmc, mode
from inference.calibration import simulation_based_calibration
from inference.parts import in_parts
from inference.predict import predict, simulate
from ppmodels.base import Data
from ppmodels.population._self_driven import square
from ppmodels.population.couplings import coupling_matrix
from ppmodels.population.cross_validation import expected
from ppmodels.population.glm import CoupledGLM
from ppmodels.population.rollouts import branching_ratio, check_rollout, rates_of, rollout
from ppmodels.population.scores import score
from ppmodels.population.time_rescaling import time_rescaling

NONE = (0, 0.0)


def test_pairs_fill_a_square_but_for_its_diagonal():
    for neurons in (1, 2, 5):
        others = torch.arange(neurons * (neurons - 1) * 3.0).reshape(neurons, neurons - 1, 3)
        full = square(others)
        assert full.shape == (neurons, neurons, 3)
        for post in range(neurons):
            rest = [pre for pre in range(neurons) if pre != post]
            assert torch.equal(full[post, rest], others[post])
            assert float(full[post, post].abs().max()) == 0


def test_the_likelihood_is_bin_by_bin_what_the_rollout_draws_from():
    model = CoupledGLM(3, 2, observation="negative-binomial", link="softplus")
    data, truth = simulate(model, 2, seed=3)
    theta = {name: value for name, value in truth.items() if "filter" not in name}
    law = model.population(theta, data)
    y, own = data.observed["counts"], model.windows(data.given["stimulus"])
    filters = model.filters_in_time(theta)
    padded = torch.cat([data.given["past"], y], 1)
    t, n = 17, 1
    drive = theta["baseline"][n]
    for d in range(2):
        for lag in range(own.lead + 1):
            drive = drive + filters["stimulus_filter"][n, d, lag] * data.given["stimulus"][0, own.lead + t - lag, d]
    for lag in range(own.past):
        before = padded[0, own.past + t - 1 - lag]
        drive = drive + filters["history_filter"][n, lag] * before[n] + filters["coupling_filter"][n, :, lag] @ before
    torch.testing.assert_close(law.total_drive(y)[0, t, n], drive)


@pytest.mark.parametrize(
    ("observation", "link"),
    [("poisson", "exp"), ("poisson", "softplus"), ("poisson", "sigmoid"), ("poisson", "threshold-linear"),
     ("bernoulli", "exp"), ("bernoulli", "sigmoid"), ("negative-binomial", "exp")],
)  # fmt: skip
def test_every_law_adds_up_to_one_and_has_its_mean(observation, link):
    law = CoupledGLM(observation=observation, link=link, rate=20.0).law
    drive = law.rest + torch.tensor([[-0.3], [0.0], [0.8]], dtype=torch.float64)
    counts = torch.arange(2.0 if observation == "bernoulli" else 200.0, dtype=torch.float64)
    dispersion = torch.tensor(0.7, dtype=torch.float64) if "binomial" in observation else None
    p = law.log_prob(counts, drive, dispersion).exp()
    torch.testing.assert_close(p.sum(-1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(p @ counts, law.mean(drive)[:, 0])
    if dispersion is not None:
        variance = p @ counts.square() - (p @ counts).square()
        torch.testing.assert_close(variance, (p @ counts) + 0.7 * (p @ counts).square())
    if link not in ("sigmoid",) and observation != "bernoulli":
        assert float(law.mean(drive)[1]) == pytest.approx(20.0 * 0.01)
    torch.manual_seed(0)
    drawn = law.sample(drive.expand(3, 100_000), dispersion, 1000.0).mean(-1)
    torch.testing.assert_close(drawn, law.mean(drive)[:, 0], rtol=0.05, atol=0)


def planted(rows=60, seed=0, **fields):
    """A population of five with planted signs, some couplings zero, simulated over rows of 1000 bins."""
    model = CoupledGLM(5, 0, 0.005, NONE, (3, 0.05), (3, 0.05), rate=15.0, scale=0.5, **fields)
    signs = torch.tensor([[0, 1, 0, -1, 0], [0, 0, 1, 0, 0], [-1, 0, 0, 0, 1], [0, 0, 0, 0, -1], [0, 1, 0, 0, 0]])
    off = ~torch.eye(5, dtype=torch.bool)
    shape = torch.tensor([0.25, 0.1, 0.05], dtype=torch.float64)
    theta = {
        "baseline": torch.full((5,), math.log(15.0), dtype=torch.float64),
        "history_weight": torch.tensor([-0.8, -0.3, -0.1], dtype=torch.float64).expand(5, 3),
        "coupling_weight": signs[off].reshape(5, 4)[..., None] * shape,
    }
    given = {name: value.double() for name, value in model.inputs(rows).items()}
    given["stimulus"], given["seen"] = torch.zeros(rows, 1000, 0).double(), torch.ones(rows, 1000, 5).double()
    counts = rollout(model, theta, Data(rows, given), seed=seed)
    return model, Data(rows, given, {"counts": counts}), theta, signs


def test_the_planted_signs_come_back():
    model, data, theta, signs = planted()
    fit = laplace.fit(model, data, num_samples=400, seed=0)
    matrix = coupling_matrix(fit.draws["coupling_filter"])
    assert matrix.mean.diagonal().isnan().all()
    off = ~torch.eye(5, dtype=torch.bool)
    planted_pairs = off & (signs != 0)
    assert torch.equal(matrix.sign[planted_pairs], signs[planted_pairs].to(matrix.sign))
    wrong = int((matrix.sign[off & (signs == 0)] != 0).sum())
    assert wrong <= 2  # 13 pairs without a coupling, each named with 5% probability
    assert fit.info["khat"] < 0.7
    for name, value in theta.items():
        draws = fit.draws[name].flatten(0, 1)
        z = (draws.mean(0) - value) / draws.std(0)
        assert float(z.square().mean()) < 1.6, name


def test_the_tree_has_filters_in_seconds_and_a_likelihood_a_trial():
    model = CoupledGLM(2, 1)
    counts = torch.poisson(torch.full((3, 60, 2), 0.1, dtype=torch.float64))
    data = model.data(counts, torch.randn(3, 60, 1, dtype=torch.float64))
    tree = laplace.fit(model, data, num_samples=20).to_datatree(prior=0)
    posterior = tree["posterior"]
    assert posterior["coupling_filter"].dims == ("chain", "draw", "post", "pre", "lag")
    assert posterior["history_filter"].dims == ("chain", "draw", "post", "lag")
    assert posterior["lag"].values.tolist() == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.05])
    assert posterior["stimulus_lag"].values.tolist() == pytest.approx([0.0, 0.01, 0.02, 0.03, 0.04])
    assert tree["log_likelihood"]["counts"].dims == ("chain", "draw", "rows")
    assert tree["posterior_predictive"]["counts"].dims == ("chain", "draw", "rows", "time", "neuron")
    assert "past" in tree["constant_data"]


def test_parts_have_the_posterior_of_the_whole():
    model, data, _, _ = planted(rows=6)
    gaussian = laplace.fit(model, data, num_samples=4000, seed=1)
    fit = in_parts(mcmc.fit, model, data, seed=1, num_chains=8, num_warmup=60, num_samples=60, compile=False)
    assert len(fit.info["parts"]) == 5
    assert fit.draws["coupling_filter"].shape == (8, 60, 5, 5, 10)
    for name in ("baseline", "history_weight", "coupling_weight"):
        own, other = fit.draws[name].flatten(0, 1), gaussian.draws[name].flatten(0, 1)
        z = (own.mean(0) - other.mean(0)) / other.std(0)
        assert float(z.abs().mean()) < 0.25, name
        assert float((own.std(0) / other.std(0)).log().mean().abs()) < 0.1, name


def test_dispersion_is_learned_with_the_filters():
    model = CoupledGLM(2, 1, observation="negative-binomial", lags=False)
    torch.manual_seed(0)
    given = {name: value.double() for name, value in model.inputs(300).items()}
    theta = {
        "baseline": torch.tensor([3.0, 3.5]).double(),
        "stimulus_weight": torch.tensor([[[0.2, -0.1, 0.1]], [[-0.2, 0.1, 0.0]]]).double(),
        "history_weight": torch.tensor([[-0.3, -0.1, 0.0], [-0.2, 0.0, 0.0]]).double(),  # spikes calm, or it runs away
        "coupling_weight": torch.tensor([[[0.05, 0.0]], [[-0.1, 0.0]]]).double(),
        "dispersion": torch.tensor([0.5, 2.0]).double(),
    }
    counts = rollout(model, theta, Data(300, given), seed=1)
    fit = mode.fit(model, Data(300, given, {"counts": counts}), num_restarts=2)
    found = fit.draws["dispersion"][0, 0]
    torch.testing.assert_close(found, theta["dispersion"], rtol=0.2, atol=0)


@pytest.mark.parametrize(("kind", "rows"), [("ard", 1), ("group", 1), ("horseshoe", 4)])
def test_sparse_priors_shrink_absent_couplings_and_keep_planted_ones(kind, rows):
    """By posterior means: the joint mode of weights and their scales has the scales grow, and shrinks nothing.

    Heavy tails shrink a weight only as far as the data leave it open, hence a row; a horseshoe needs to see a coupling.
    """
    model, data, _, signs = planted(rows, couplings=kind)
    ridge = CoupledGLM(5, 0, 0.005, NONE, (3, 0.05), (3, 0.05), rate=15.0, scale=0.5)
    small = {"seed": 0, "num_chains": 16, "num_warmup": 100, "num_samples": 60, "compile": False}
    off = ~torch.eye(5, dtype=torch.bool)
    fits = (in_parts(mcmc.fit, m, data, **small) for m in (model, ridge))
    own, plain = (fit.draws["coupling_weight"].mean((0, 1)).norm(dim=-1) for fit in fits)
    present = (signs != 0)[off].reshape(5, 4)
    assert float(own[~present].mean()) < float(plain[~present].mean())
    assert float(own[present].mean()) > 0.6 * float(plain[present].mean())


def test_smooth_priors_make_smooth_filters_and_ald_finds_the_place():
    scale = 0.08  # a raw function is sqrt(20) high, so that a filter's values have the sd 0.36 of the planted peak
    model = CoupledGLM(1, 1, 0.005, (20, 0.1), NONE, NONE, "raw", rate=20.0, scale=scale)
    generator = torch.Generator().manual_seed(0)
    given = {"stimulus": torch.randn(20, 519, 1, generator=generator).double(), "past": torch.zeros(20, 0, 1).double()}
    given["seen"] = torch.ones(20, 500, 1).double()
    lag = torch.arange(20).double()
    true = (0.35 * torch.exp(-0.5 * ((lag - 6) / 2).square()))[None, None]
    rough = CoupledGLM(1, 1, 0.005, (20, 0.1), NONE, NONE, "raw", rate=20.0)
    root = rough.windows(true).stimulus[0, 0]
    theta = {"baseline": torch.tensor([3.0]).double(), "stimulus_weight": true / root}
    data = Data(20, given, {"counts": rollout(model, theta, Data(20, given), seed=0)})
    errors = {}
    for kind in ("ridge", "smooth", "ald"):
        own = CoupledGLM(1, 1, 0.005, (20, 0.1), NONE, NONE, "raw", rate=20.0, scale=scale, filters=kind)
        fit = mode.fit(own, data, num_restarts=2)
        errors[kind] = float((fit.draws["stimulus_filter"][0, 0] - true).square().mean().sqrt())
        if kind == "ald":
            assert float(fit.draws["stimulus_weight_center"]) * 20 == pytest.approx(6.5, abs=3)
    assert errors["smooth"] < 0.8 * errors["ridge"]
    assert errors["ald"] < 0.8 * errors["ridge"]


def test_a_runaway_simulation_names_neuron_bin_and_trial():
    model = CoupledGLM(2, 0, 0.01, NONE, (1, 0.01), NONE, "raw", rate=20.0)
    given = {"stimulus": torch.zeros(2, 200, 0), "past": torch.zeros(2, 1, 2), "seen": torch.ones(2, 200, 2)}
    data = Data(2, {name: value.double() for name, value in given.items()})
    theta = {"baseline": torch.tensor([3.0, 3.0]).double(), "history_weight": torch.tensor([[-1.0], [3.0]]).double()}
    assert branching_ratio(model, theta, torch.tensor([20.0, 20.0]).double()) == pytest.approx(0.6)
    with pytest.raises(
        ArithmeticError, match=r"neuron 1 fires \d+ spikes in a bin from bin \d+ of trial [01]"
    ) as error:
        rollout(model, theta, data, seed=0)
    assert "\n" not in str(error.value)
    check_rollout(model, torch.ones(3, 2, 5, 2))
    calm = {**theta, "history_weight": torch.tensor([[-1.0], [0.3]]).double()}
    assert rollout(model, calm, data, seed=0).shape == (2, 200, 2)
    assert torch.equal(rollout(model, calm, data, seed=0), rollout(model, calm, data, seed=0))


def test_rollouts_of_the_posterior_have_the_rates_of_the_data():
    model, data, _, _ = planted(rows=4)
    fit = laplace.fit(model, data, num_samples=30, seed=0)
    drawn = predict(fit, seed=1)["counts"].flatten(0, 1)
    assert drawn.shape == (30, 4, 1000, 5)
    check_rollout(model, drawn)
    observed = data.observed["counts"].mean((0, 1))
    rates = drawn.mean((1, 2))
    low, high = rates.quantile(0.005, 0), rates.quantile(0.995, 0)
    assert bool(((observed > 0.8 * low) & (observed < 1.2 * high)).all())


def test_the_true_model_is_accepted_and_one_without_coupling_scores_less():
    model, data, theta, _ = planted(rows=20)
    counts = data.observed["counts"]
    law = model.population(theta, data)
    mean = model.law.mean(law.total_drive(counts))
    assert sum(time_rescaling(counts[..., n], mean[..., n]).p_value > 0.01 for n in range(5)) == 5
    single = CoupledGLM(5, 0, 0.005, NONE, (3, 0.05), NONE, rate=15.0, scale=0.5)
    given = {**data.given, "past": data.given["past"]}
    alone = expected(single, mode.fit(single, Data(20, given, data.observed)).draws, Data(20, given, data.observed))
    assert score(counts, mean).total_bits_per_spike > score(counts, alone).total_bits_per_spike


def test_fields_that_cannot_be_are_one_line():
    for fields, said in (
        ({"neurons": 0}, "there must be a neuron"),
        ({"history": (3, 0.0)}, r"history is \(basis functions, seconds\)"),
        ({"coupling": (9, 0.05)}, "coupling: a window of 0.05 s has 5 bins of 0.01 s, too few for 9"),
        ({"stimulus": (3, 0.05), "basis": "raw"}, "stimulus: a raw window has a function a bin, so 5, not 3"),
        ({"couplings": "lasso"}, "couplings must be one of ridge, smooth, ard, group, horseshoe; it is 'lasso'"),
        ({"observation": "gamma"}, "observation must be one of"),
        ({"scale": 0.0}, "scale must be positive"),
        ({"observation": "bernoulli", "link": "sigmoid", "rate": 200.0}, "a spike a bin or more"),
    ):
        with pytest.raises(ValueError, match=said):
            CoupledGLM(**fields)


def test_rates_are_in_hz():
    model = CoupledGLM(2, 0, coupling=NONE)
    from ppmodels.population.binning import Counts

    assert rates_of(Counts.of(torch.ones(10, 2), 0.01)).tolist() == [100.0, 100.0]
    assert model.law.mean(torch.tensor(model.law.rest)).item() == pytest.approx(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("observation", ["poisson", "negative-binomial"])
def test_posteriors_are_calibrated(observation):
    """Neurons that excite one another, three of them, 2000 bins."""
    model = CoupledGLM(3, 0, stimulus=NONE, history=(2, 0.05), coupling=(1, 0.05), observation=observation, lags=False)

    def fit(model, data, seed=0):
        return in_parts(mcmc.fit, model, data, seed=seed, num_chains=32, num_warmup=40, num_samples=15, compile=False)

    found = simulation_based_calibration(model, fit, num_datasets=60, rows=67)
    p = torch.cat([value.reshape(-1) for value in found.p_values.values()])
    assert float(p.min()) > 0.01 / len(p)
