"""The Dirichlet process mixture: sticks and tables by formula, and bound, predictions and draws that must agree."""

import math

import numpy as np
import pytest
import torch
from pyro import condition, poutine
from torch.distributions import MultivariateNormal, Wishart

import inference
from inference import Unsupported, mcmc, svi
from inference.pointwise import assignments
from inference.predict import simulate
from inference.sklearn import Estimator
from ppmodels.base import Data
from ppmodels.clustering._normal_wishart import prior_of
from ppmodels.clustering._statistics import of_labels
from ppmodels.clustering.dirichlet_process import DirichletProcessMixture
from ppmodels.clustering.gmm import GaussianMixture
from ppmodels.clustering.sticks import expected_clusters, stick_breaking
from ppmodels.clustering.variational import coordinate_ascent


def planted(middles, rows=80, seed=0):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(middles), rows, 2, generator=generator, dtype=torch.float64)
    return (noise + torch.tensor(middles, dtype=torch.float64)[:, None]).flatten(0, 1)


def data_of(x):
    return Data(len(x), observed={"x": x})


TWO, THREE = planted([[0.0, 0.0], [4.0, 1.0]], 100), planted([[0.0, 0.0], [5.0, 1.0], [0.0, 6.0]])


def test_sticks_have_the_means_of_the_formula_and_add_up():
    alpha = 1.7
    law = torch.distributions.Beta(torch.ones(9, dtype=torch.float64), alpha)
    torch.manual_seed(0)
    pieces = stick_breaking(law.sample((20_000,)))
    torch.testing.assert_close(pieces.sum(-1), torch.ones(20_000, dtype=torch.float64))
    k = torch.arange(9)
    wanted = 1 / (1 + alpha) * (alpha / (1 + alpha)) ** k
    error = pieces[:, :9].std(0) / 20_000**0.5
    assert ((pieces[:, :9].mean(0) - wanted).abs() < 4 * error).all()
    torch.testing.assert_close(stick_breaking(law.mean)[:9], wanted.double())


def test_a_restaurant_fills_as_many_tables():
    assert expected_clusters(1.0, 100) == pytest.approx(5.1874, abs=1e-4)
    random, counts = np.random.default_rng(0), []
    for _ in range(200):
        tables: list[int] = []
        for row in range(100):
            place = (
                int(np.searchsorted(np.cumsum(tables), random.random() * (row + 1.0), side="right")) if tables else 0
            )
            if place == len(tables):
                tables.append(1)
            else:
                tables[place] += 1
        counts.append(len(tables))
    assert abs(np.mean(counts) - expected_clusters(1.0, 100)) < 4 * np.std(counts) / 200**0.5


def test_normal_wishart_divergence_and_moments_are_those_of_its_samples():
    prior = prior_of(DirichletProcessMixture(components=1, weights="finite", scale=(1.0, 2.0)))
    law = prior.given(of_labels(TWO[:20], torch.zeros(20).long(), 1, True))
    torch.manual_seed(0)
    drawn = [law.sample() for _ in range(2000)]
    loc = torch.stack([mean for mean, _ in drawn])[:, 0]
    matrix = torch.stack([factor.mT @ factor for _, factor in drawn])[:, 0]

    def log_prob(one):
        scale = Wishart(one.degrees[0], torch.linalg.inv(one.root @ one.root.mT)[0]).log_prob(matrix)
        return scale + MultivariateNormal(one.mean[0], precision_matrix=one.rows * matrix).log_prob(loc)

    ratio, log_det = log_prob(law) - log_prob(prior), matrix.logdet()
    assert abs(float(ratio.mean() - law.divergence(prior))) < 4 * float(ratio.std()) / 2000**0.5
    assert abs(float(log_det.mean() - law.expected_log_det)) < 4 * float(log_det.std()) / 2000**0.5
    wanted = (law.factor.mT @ law.factor)[0]
    assert ((matrix.mean(0) - wanted).abs() < 4 * matrix.std(0) / 2000**0.5).all()
    assert float(law.divergence(law)) == pytest.approx(0, abs=1e-10)


def test_the_bound_is_what_draws_say():
    """E_q [log p(x, theta) - log q(theta)] by Monte Carlo, with memberships summed out, is at least the bound."""
    model = DirichletProcessMixture.for_data(TWO, components=2)
    found = coordinate_ascent(model, data_of(TWO), num_restarts=3)
    torch.manual_seed(0)
    prior, gains = prior_of(model), []
    weights_law = torch.distributions.Beta(torch.ones(1).double(), model.concentration)
    for _ in range(300):
        sticks, (loc, factor) = found.weights.sample(), found.gaussians.sample()
        table = MultivariateNormal(loc, precision_matrix=factor.mT @ factor).log_prob(TWO[:, None])
        score = (stick_breaking(sticks).log() + table).logsumexp(-1).sum()
        for sign, law, share in ((1, prior, weights_law), (-1, found.gaussians, found.weights)):
            matrix = factor.mT @ factor
            scale = Wishart(law.degrees, torch.linalg.inv(law.root @ law.root.mT)).log_prob(matrix).sum()
            mean = MultivariateNormal(law.mean, precision_matrix=law.rows[:, None, None] * matrix).log_prob(loc).sum()
            score = score + sign * (scale + mean + share.log_prob(sticks).sum())
        gains.append(score)
    gain = torch.stack(gains)
    assert float(gain.mean()) > found.bound - 4 * float(gain.std()) / 300**0.5
    assert float(gain.mean()) < found.bound + 3  # what q of memberships loses, with clusters this far apart


@pytest.mark.parametrize("weights", ["finite", "sticks"])
def test_the_bound_scales_as_a_density_and_picks_the_true_number(weights):
    bounds = {}
    for scale in (1.0, 10.0):
        for components in (1, 2, 3, 6) if weights == "finite" else (2, 3):
            model = DirichletProcessMixture.for_data(scale * TWO, components=components, weights=weights)
            fit = svi.fit(model, data_of(scale * TWO), guide="blocks", num_restarts=3, num_samples=2)
            assert fit.info["converged"]
            assert fit.trace["elbo"].diff().min() > -1e-8
            bounds[scale, components] = fit.info["elbo"]
    for (scale, components), bound in bounds.items():
        if scale == 1.0:
            assert bounds[10.0, components] == pytest.approx(bound - 200 * 2 * math.log(10), abs=1e-3)
    assert max((bound, key) for key, bound in bounds.items())[1] == (1.0, 2)


def test_one_component_is_the_exact_evidence():
    """Then memberships are known, q is exact, and the bound is the product of one-step predictions."""
    x = TWO[:30]
    model = DirichletProcessMixture.for_data(x, components=1, weights="finite")
    law, total = prior_of(model), 0.0
    for row in x:
        total += float(law.log_predictive(row[None]))
        law = law.given(of_labels(row[None], torch.zeros(1).long(), 1, True))
    assert coordinate_ascent(model, data_of(x), num_restarts=1).bound == pytest.approx(total, abs=1e-8)


@pytest.mark.parametrize("rows", [20, 60, 240])
def test_predictions_integrate_to_one(rows):
    x = THREE[torch.randperm(240, generator=torch.Generator().manual_seed(0))[:rows]][:, :1]
    model = DirichletProcessMixture.for_data(x, components=6)
    found = coordinate_ascent(model, data_of(x), num_restarts=3)
    grid = torch.linspace(-400, 400, 80_001, dtype=torch.float64)
    mass = float(torch.trapezoid(found.log_prob(grid[:, None]).exp(), grid))
    assert mass == pytest.approx(1, abs=2e-3)


def test_three_planted_clusters_are_found_by_both_and_empty_ones_stay_empty():
    truth = torch.arange(240) // 80
    model = DirichletProcessMixture.for_data(THREE, components=10)
    found = coordinate_ascent(model, data_of(THREE), num_restarts=5)
    assert (found.count > 1).sum() == 3
    label = found.memberships(THREE).argmax(-1)
    agree = torch.stack([(label[truth == k] == label[truth == k].mode().values).double().mean() for k in range(3)])
    assert agree.min() > 0.97
    fit = mcmc.fit(model, data_of(THREE), kernel="gibbs", num_chains=2, num_samples=75, num_warmup=50)
    share = stick_breaking(fit.draws["sticks"]).flatten(0, 1).sort(-1, descending=True).values
    assert ((share.mean(0)[:3] - 1 / 3).abs() < 0.06).all()
    assert share[:, 3:].sum(-1).mean() < 0.12
    assert all(value.isfinite().all() for value in fit.draws.values())


@pytest.mark.parametrize(("method", "options"), [("svi", {"guide": "blocks"}), ("mcmc", {"kernel": "gibbs"})])
def test_its_own_ways_are_fits_like_any_other(method, options):
    model = DirichletProcessMixture.for_data(TWO, components=2, weights="finite")
    small = {"num_samples": 60, **({"num_chains": 2, "num_warmup": 20} if method == "mcmc" else {"num_restarts": 2})}
    fit, again = (inference.fit(method, model, data_of(TWO), seed=3, **options, **small) for _ in range(2))
    assert all(torch.equal(value, again.draws[name]) for name, value in fit.draws.items())
    chains = 2 if method == "mcmc" else 1
    assert {name: tuple(value.shape) for name, value in fit.draws.items()} == {
        "weights": (chains, 60, 2), "loc": (chains, 60, 2, 2), "precision": (chains, 60, 2, 2),
        "off_diagonal": (chains, 60, 2, 1),
    }  # fmt: skip
    assert (fit.draws["loc"][..., 0, 0] < fit.draws["loc"][..., 1, 0]).all()
    tree = fit.to_datatree()
    assert {"posterior", "posterior_predictive", "log_likelihood"} <= set(tree.children)
    assert not fit.summary().drop(columns="r_hat").isna().any().any()  # which one chain has not
    (found,) = assignments(fit).values()
    assert (np.asarray(found).argmax(-1)[:100] == 0).mean() > 0.9
    single = inference.fit(method, model, data_of(TWO.float()), seed=3, **options, **small)
    assert all(value.dtype == torch.float32 for value in single.draws.values())


def test_draws_of_the_blocks_have_the_moments_of_their_laws():
    model = DirichletProcessMixture.for_data(TWO, components=2, weights="finite")
    found = coordinate_ascent(model, data_of(TWO), num_restarts=2)
    torch.manual_seed(0)
    drawn = found.sample(3000)
    for value, wanted in ((drawn["weights"], found.mean_weights), (drawn["loc"], found.gaussians.mean)):
        assert ((value.mean(0) - wanted).abs() < 4.5 * value.std(0) / 3000**0.5).all()
    matrix = found.gaussians.factor.mT @ found.gaussians.factor  # E Lambda
    second = drawn["precision"][:, :, 1]  # W is lower triangular, so its last diagonal entry squared is Lambda's
    assert ((second.mean(0) - matrix[:, 1, 1]).abs() < 4.5 * second.std(0) / 3000**0.5).all()


def test_the_estimators_density_integrates_to_one():
    x = THREE[::12, :1]
    model = DirichletProcessMixture.for_data(x, components=4)
    face = Estimator(model, method="svi", options={"guide": "blocks", "num_restarts": 2, "num_samples": 100})
    grid = torch.linspace(-60, 60, 4001, dtype=torch.float64)
    score = face.fit(x.numpy()).score_samples(grid[:, None].numpy())
    assert float(torch.trapezoid(torch.as_tensor(score).exp(), grid)) == pytest.approx(1, abs=2e-3)


def test_gibbs_leaves_the_prior_as_it_is():
    """Geweke: data drawn from a draw and a draw from data, in turn, have the prior's moments."""
    model = DirichletProcessMixture(components=2, dim=1, strength=8.0, shrinkage=1.0)
    drawn = []
    for seed in range(100):
        data, _ = simulate(model, 5, seed=seed)
        torch.manual_seed(seed)
        data, latents = data_of(data.observed["x"].double()), None
        for _ in range(15):
            latents = model.sweep(data, latents)
        drawn.append(latents)
    stick, precision = (torch.stack([d[name].flatten()[0] for d in drawn]) for name in ("sticks", "precision"))
    prior = prior_of(model)
    for values, mean in ((stick, 0.5), (precision, float(prior.degrees[0] / prior.root[0, 0, 0] ** 2))):
        assert abs(float(values.mean()) - mean) < 4 * float(values.std()) / 100**0.5


def test_pyro_program_is_the_same_prior():
    model = DirichletProcessMixture(components=3, dim=2, scale=(1.0, 3.0))
    data = simulate(model, 4, seed=1)[0]
    trace = poutine.trace(condition(model.model, data=dict(data.observed))).get_trace(data)
    loc = trace.nodes["loc"]
    factor_precision = torch.linalg.inv(trace.nodes["covariance"]["value"])
    wanted = MultivariateNormal(torch.zeros(2), precision_matrix=model.shrinkage * factor_precision).log_prob(
        loc["value"]
    )
    torch.testing.assert_close(loc["fn"].log_prob(loc["value"]), wanted.sum(), rtol=1e-3, atol=1e-3)


def test_what_cannot_be_is_said():
    with pytest.raises(ValueError, match="components must be at least 2"):
        DirichletProcessMixture(components=1)
    with pytest.raises(ValueError, match="must be positive and finite"):
        DirichletProcessMixture(concentration=0.0)
    holes = TWO.clone()
    holes[3, 1] = math.nan
    with pytest.raises(ValueError, match="x is nan in row 3, column 1"):
        svi.fit(DirichletProcessMixture(), data_of(holes), guide="blocks")
    with pytest.raises(ValueError, match="missing values"):
        coordinate_ascent(DirichletProcessMixture(), data_of(holes))
    for method, options in ((svi, {"guide": "blocks"}), (mcmc, {"kernel": "gibbs"})):
        with pytest.raises(Unsupported, match="GaussianMixture has no"):
            method.fit(GaussianMixture(), data_of(TWO), **options)
    with pytest.raises(Unsupported, match="checkpoint needs one of the other kernels"):
        mcmc.fit(DirichletProcessMixture(), data_of(TWO), kernel="gibbs", checkpoint="there")
