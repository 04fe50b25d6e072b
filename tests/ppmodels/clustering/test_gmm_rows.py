"""Rows that weigh differently, have holes, come in batches or stream by; and what a fitted mixture then says."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from torch.distributions import MultivariateNormal

from inference import Unsupported, em, mode
from ppmodels.base import Data
from ppmodels.clustering import _covariance, _one_pass
from ppmodels.clustering._gaussian import moments
from ppmodels.clustering._statistics import Statistics
from ppmodels.clustering.density import MixtureDensity
from ppmodels.clustering.gmm import GaussianMixture
from ppmodels.clustering.kmeans import KMeans
from ppmodels.clustering.selection import criteria, free_parameters, standard_errors
from ppmodels.datasets import old_faithful

pytestmark = pytest.mark.usefixtures("double_precision")
FAMILIES = ("full", "tied", "diagonal", "spherical")


def faithful(family="full", components=2):
    data = old_faithful()
    return GaussianMixture.for_data(data.observed["x"], components=components, covariance=family), data


def data_of(x, **given):
    return Data(len(x), given, {"x": x})


def point(fit):
    return {name: value[0, 0] for name, value in fit.draws.items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("way", ["features", "whitened"])
def test_one_pass_is_the_table_of_memberships(family, way, monkeypatch):
    model, data = faithful(family, components=3)
    monkeypatch.setattr(_one_pass, "CHUNK", 300)
    if way == "whitened":
        monkeypatch.setattr(_one_pass, "CANCELS", 0.0)
    theta = model.start(data)
    q, log_likelihood = model.e_step(theta, data)
    sums, score = model.statistics(theta, data)
    count, mean, scatter = moments(q, data.observed["x"], family in ("full", "tied"))
    assert float(score) == pytest.approx(float(log_likelihood), rel=1e-13)
    torch.testing.assert_close(sums.count, count)
    torch.testing.assert_close(sums.mean, mean)
    wanted = scatter.mean(0).expand_as(scatter) if family == "tied" else scatter
    torch.testing.assert_close(sums.scatter, wanted, rtol=1e-9, atol=1e-9)
    gained = model.expected_log_joint(sums, theta) - (q * q.log().nan_to_num(0.0)).sum()
    assert float(gained) == pytest.approx(float(log_likelihood), rel=1e-11)  # the bound is tight at the posterior


@pytest.mark.parametrize("family", FAMILIES)
def test_sums_of_two_sets_add_up(family):
    model, data = faithful(family, components=3)
    theta, x = model.start(data), data.observed["x"]
    whole, _ = model.statistics(theta, data)
    parts = [model.statistics(theta, data_of(rows))[0] for rows in x.split(50)]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    best, again = model.maximise(whole, False), model.maximise(total, False)
    for name, value in best.items():
        torch.testing.assert_close(again[name], value, rtol=1e-10, atol=1e-10)


def test_far_from_zero_and_far_apart_no_digits_are_lost():
    x = torch.cat([torch.randn(50, 1), 1e9 + torch.randn(50, 1)])
    label = torch.arange(100) // 50
    theta = {"weights": torch.tensor([0.5, 0.5]), "loc": torch.tensor([[0.0], [1e9]]), "precision": torch.ones(2, 1)}
    model = GaussianMixture(components=2, dim=1)
    sums, _ = model.statistics(theta, data_of(x))
    for k in range(2):
        assert float(sums.scatter[k]) == pytest.approx(float(x[label == k].var() * 49), rel=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_weight_is_a_repetition(family):
    model, data = faithful(family)
    x, weight = data.observed["x"], (torch.arange(272) % 3).double()
    repeated = data_of(x.repeat_interleave(weight.long(), 0))
    theta = model.start(data)
    (one, a), (two, b) = model.statistics(theta, data_of(x, weight=weight)), model.statistics(theta, repeated)
    assert float(a) == pytest.approx(float(b), rel=1e-12)
    q, log_likelihood = model.e_step(theta, data_of(x, weight=weight))
    assert float(log_likelihood) == pytest.approx(float(a), rel=1e-12)
    for name, value in model.maximise(two, False).items():
        torch.testing.assert_close(model.maximise(one, False)[name], value, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(model.m_step(q, data_of(x, weight=weight), False)[name], value, rtol=1e-9, atol=1e-9)
    fits = [em.fit(model, d, num_restarts=5) for d in (Data.of(model, x=x, weight=weight), repeated)]
    assert fits[0].info["log_likelihood"] == pytest.approx(fits[1].info["log_likelihood"], abs=1e-5)
    with pytest.raises(ValueError, match="this method reads no weight"):
        mode.fit(model, data_of(x, weight=weight))
    with pytest.raises(ValueError, match=r"weight is -1\.0 in row 7"):
        em.fit(model, data_of(x, weight=torch.where(torch.arange(272) == 7, -1.0, weight)))


def holes(x, share=0.3, seed=0):
    out = x.clone()
    out[torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < share] = math.nan
    return out


@pytest.mark.parametrize("family", FAMILIES)
def test_missing_values_are_summed_out(family):
    x = holes(torch.tensor(load_iris().data))
    model = GaussianMixture.for_data(x, components=2, covariance=family)
    theta = model.start(data_of(x))
    q, log_likelihood = model.e_step(theta, data_of(x))
    sigma = _covariance.covariance(_covariance.whitening(theta, family, 4), family in ("full", "tied")).expand(2, 4, 4)
    total = 0.0
    for row in x:
        seen = ~row.isnan()
        table = theta["weights"].log()
        if seen.any():
            table = table + MultivariateNormal(theta["loc"][:, seen], sigma[:, seen][:, :, seen]).log_prob(row[seen])
        total += float(table.logsumexp(-1))
    assert float(log_likelihood) == pytest.approx(total, rel=1e-11)
    assert float(model.statistics(theta, data_of(x))[1]) == pytest.approx(total, rel=1e-11)
    fit = em.fit(model, data_of(x), num_restarts=3, num_steps=60, accelerate=False, prior=True)
    assert fit.trace["log_density"].diff().min() > -1e-9
    with pytest.raises(ValueError, match="missing values"):
        model.m_step(q, data_of(x), False)


def test_one_gaussian_with_holes_is_the_maximum_of_its_likelihood():
    x = holes(torch.randn(200, 3) @ torch.tensor([[1.0, 0.5, 0.2], [0, 1, -0.4], [0, 0, 0.5]]))
    model = GaussianMixture.for_data(x, components=1)
    theta = point(em.fit(model, data_of(x), num_restarts=1, tol=1e-13))
    free = {name: value.clone().requires_grad_(name != "weights") for name, value in theta.items()}
    learned = [free[name] for name in ("loc", "precision", "off_diagonal")]
    slope = torch.autograd.grad(model.e_step(free, data_of(x))[1], learned)
    assert max(float(s.abs().max()) for s in slope) < 1e-3
    filled = torch.where(x.isnan(), x.nanmean(0), x)  # what imputation by means would give is too narrow
    ours = _covariance.covariance(_covariance.whitening(theta, "full", 3), True)[0].diagonal()
    assert (ours > filled.var(0)).all()


def test_batches_reach_the_same_top_without_a_fall():
    model, data = faithful()
    whole, batches = em.fit(model, data, num_restarts=3), em.fit(model, data, num_restarts=3, batch_size=40)
    assert batches.info["converged"]
    assert batches.info["log_likelihood"] == pytest.approx(whole.info["log_likelihood"], abs=1e-4)
    assert batches.trace["bound"].diff().min() > -1e-9
    assert len(batches.trace["bound"]) < 30
    with pytest.raises(Unsupported, match="KMeans has no statistics"):
        em.fit(KMeans(), data, batch_size=40)


def test_a_stream_is_learned_from_one_batch_at_a_time():
    loc = torch.tensor([[0.0, 0.0], [5.0, 1.0]])
    model = GaussianMixture(components=2, center=(2.5, 0.5), scale=(3.0, 1.5))
    stream = em.Stream(model, prior=True)
    for _ in range(150):
        stream.learn(data_of(loc[torch.randint(2, (50,))] + torch.randn(50, 2)))
    assert stream.theta is not None
    found = stream.theta["loc"][stream.theta["loc"][:, 0].argsort()]
    assert (found - loc).abs().max() < 0.25
    one = em.Stream(model, decay=1.0)
    x = loc[torch.randint(2, (80,))] + torch.randn(80, 2)
    start = model.start(data_of(x))
    step = model.maximise(model.statistics(start, data_of(x))[0], False)
    for name, value in one.learn(data_of(x), start).theta.items():
        torch.testing.assert_close(value, step[name])  # all rows at once are one step of em
    before = {name: value.clone() for name, value in one.theta.items()}
    with pytest.raises(ValueError, match="x is inf in row 0"):
        em.Stream(model).learn(data_of(x.abs() * math.inf))
    assert all(torch.equal(one.theta[name], value) for name, value in before.items())


def test_tops_on_a_few_rows_are_doubted():
    x = torch.tensor(load_iris().data)
    model = GaussianMixture.for_data(x, components=3)
    fit = em.fit(model, data_of(x), num_restarts=25, seed=0)
    assert fit.info["log_likelihood"] == pytest.approx(-180.1855, abs=1e-3)  # not a singular one, which is higher
    assert fit.info["message"] == "converged"
    count, mean, eye = torch.tensor([3.0, 50.0]), torch.zeros(2, 2), torch.eye(2).expand(2, 2, 2)
    few = Statistics(count, mean, eye * count[:, None, None])
    assert "component 0 has only 3 rows" in few.doubt()
    thin = torch.stack([torch.diag(torch.tensor([30.0, 1e-9])), 50 * torch.eye(2)])
    flat = Statistics(torch.tensor([30.0, 50.0]), mean, thin)
    assert "component 0 is flat" in flat.doubt()
    assert Statistics(torch.tensor([30.0, 50.0]), mean, 30 * eye).doubt() == ""


MCLUST = [("tied", 3, 2314.296), ("full", 2, 2322.192), ("full", 3, 2324.178)]


@pytest.mark.parametrize(("family", "components", "bic"), MCLUST)
def test_criteria_are_those_of_mclust(family, components, bic):
    model, data = faithful(family, components)
    fit = em.fit(model, data)
    found = criteria(model, point(fit), data)
    assert found.bic == pytest.approx(bic, abs=2e-3)
    assert found.aic == pytest.approx(-2 * fit.info["log_likelihood"] + 2 * free_parameters(model), abs=1e-6)
    assert found.icl > found.bic


def test_standard_errors_of_one_gaussian_are_the_textbooks():
    x = torch.randn(500, 2) @ torch.tensor([[1.0, 0.3], [0.0, 2.0]])
    model, data = GaussianMixture.for_data(x, components=1), data_of(x)
    theta = model.maximise(model.statistics(model.start(data), data)[0], False)
    for sandwich in (False, True):
        errors = standard_errors(model, theta, data, sandwich=sandwich)
        torch.testing.assert_close(errors["loc"][0], x.std(0, correction=0) / 500**0.5, rtol=1e-6, atol=0)
        assert float(errors["precision"][0, 0] / theta["precision"][0, 0]) == pytest.approx((2 / 500) ** 0.5, rel=0.2)
    for family in ("tied", "full"):
        two, rows = faithful(family)
        errors = standard_errors(two, point(em.fit(two, rows, num_restarts=3)), rows)
        assert ((errors["loc"] > 0) & (errors["loc"] < 1)).all()
    assert errors["weights"][0] == pytest.approx(float(errors["weights"][1]))


def test_marginals_and_conditionals_make_the_joint():
    model, data = faithful(components=3)
    theta = model.start(data)
    whole, x = MixtureDensity.of(model, theta), data.observed["x"][:20]
    torch.testing.assert_close(whole.log_prob(x), model._log_joint(theta, data)[:20].logsumexp(-1))
    for row in x:
        given = whole.conditional([0], row[:1])
        total = whole.marginal([0]).log_prob(row[None, :1]) + given.log_prob(row[None, 1:])
        assert float(total) == pytest.approx(float(whole.log_prob(row[None])), rel=1e-10)
        grid = torch.linspace(0, 150, 3001)
        assert float(torch.trapezoid(given.log_prob(grid[:, None]).exp(), grid)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_samples_have_the_moments_of_the_density(family):
    model, data = faithful(family)
    density = MixtureDensity.of(model, model.start(data))
    drawn = density.sample(20_000)
    error = density.variance.diagonal().sqrt() / 20_000**0.5
    assert ((drawn.mean(0) - density.mean).abs() < 4 * error).all()
    np.testing.assert_allclose(drawn.T.cov(), density.variance, rtol=0.1, atol=0.1)
