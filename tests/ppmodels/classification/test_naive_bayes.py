"""Naive Bayes by hand, beside scikit-learn, and against itself: by pieces, with holes, without some classes."""

import itertools
import math
import warnings

import numpy as np
import pytest
import scipy.sparse
import torch
from pyro import condition, poutine
from sklearn import datasets, naive_bayes

from inference import em, exact
from inference.base import fresh, joint
from inference.density import Density
from inference.predict import simulate
from inference.scoring import reliability
from ppmodels.base import Data, HasEM, HasPosterior
from ppmodels.classification._conjugate import mean_of
from ppmodels.classification._scores import linear
from ppmodels.classification.classifier import Classifier
from ppmodels.classification.naive_bayes import NaiveBayes

MIXED = NaiveBayes(
    classes=3,
    columns=("gaussian", "bernoulli", "categorical", "multinomial", "multinomial", "categorical", "gaussian"),
    levels=(3, 2),
    center=(0.5, -1.0),
    scale=(1.0, 3.0),
)
EIGHT = torch.tensor([[1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1], [0, 0, 1], [0, 1, 0], [0, 0, 0], [0, 0, 1]])
LABEL = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0])


def mixed(rows=60, seed=0):
    return simulate(MIXED, rows, seed=seed)[0]


def learned(model, data):
    return Classifier(model).learn(data.observed["x"], data.observed["y"])


def test_it_has_the_abilities():
    assert isinstance(MIXED, HasEM)
    assert isinstance(MIXED, HasPosterior)


def test_counts_on_eight_rows_by_hand():
    found = Classifier(NaiveBayes()).learn(EIGHT, LABEL)
    theta = found.parameters(prior=False)
    assert theta["class_prob"].tolist() == [0.5, 0.5]
    assert theta["rate"].tolist() == [[0, 0.25, 0.5], [0.75, 0.75, 0.75]]
    row = torch.tensor([[1, 1, 1]])
    one = 0.5 * (4 / 6) ** 3  # (3 + 1) / (4 + 2) each: the rule of succession
    zero = 0.5 * (1 / 6) * (2 / 6) * (3 / 6)
    assert float(found.log_joint(row)[0, 1]) == pytest.approx(math.log(one), abs=1e-12)
    assert float(found.predict_proba(row)[0, 1]) == pytest.approx(one / (one + zero), abs=1e-12)
    assert float(found.predict_proba(EIGHT).sum()) == pytest.approx(8, abs=1e-12)


def test_a_zero_count_rules_a_class_out_and_smoothing_does_not():
    found = Classifier(NaiveBayes()).learn(EIGHT, LABEL)
    row = torch.tensor([[1, 0, 0]])  # no row of class 0 has a 1 in column 0, whatever the others say
    assert float(found.predict_proba(row, found.parameters(prior=False))[0, 0]) < 1e-200
    assert float(found.predict_proba(row)[0, 0]) > 0.1
    twice = Classifier(NaiveBayes(alpha=2.0)).learn(EIGHT, LABEL).parameters()["rate"]  # the mode under Beta(2, 2)
    assert torch.equal(twice, (torch.tensor([[0, 1, 2], [3, 3, 3]]).double() + 1) / (4 + 2))


def test_bernoulli_maximum_likelihood_is_the_share_of_ones():
    theta = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    for _ in range(20):
        score = 7 * theta.log() + 13 * (1 - theta).log()
        (slope,) = torch.autograd.grad(score, theta, create_graph=True)
        (curvature,) = torch.autograd.grad(slope, theta)
        theta = (theta - slope / curvature).detach().requires_grad_()
    x = torch.tensor([1] * 7 + [0] * 13)[:, None]
    ours = Classifier(NaiveBayes(classes=1, columns=("bernoulli",))).learn(x, torch.zeros(20)).parameters(False)
    assert float(ours["rate"]) == pytest.approx(float(theta.detach()), abs=1e-12)
    assert float(ours["rate"]) == 7 / 20


@pytest.mark.parametrize("kind", ["gaussian", "bernoulli", "categorical", "multinomial"])
def test_it_predicts_as_scikit_learn(kind):
    digits = datasets.load_digits()
    x, y = digits.data, digits.target
    x = {"gaussian": x[:, 2:6] + 0.01 * x[:, 10:14], "bernoulli": (x > 7) * 1.0}.get(kind, x)
    levels = (17,) * x.shape[1] if kind == "categorical" else ()
    theirs = {
        "gaussian": naive_bayes.GaussianNB(var_smoothing=0),
        "bernoulli": naive_bayes.BernoulliNB(),
        "categorical": naive_bayes.CategoricalNB(min_categories=17),
        "multinomial": naive_bayes.MultinomialNB(),
    }[kind].fit(x, y)
    model = NaiveBayes(classes=10, columns=(kind,) * x.shape[1], levels=levels)
    ours = Classifier(model).learn(x, y)
    plain = kind == "gaussian"
    theta = (
        ours.parameters(prior=False)
        if plain
        else ours.parameters() | {"class_prob": torch.tensor(np.bincount(y) / len(y))}
    )
    if not plain:  # scikit-learn smooths by the posterior mean and takes class shares as they are
        theta = mean_of(model, ours.sums) | {"class_prob": theta["class_prob"]}
    np.testing.assert_allclose(
        ours.predict_proba(x, theta).log().clamp(min=-500), theirs.predict_log_proba(x).clip(-500), atol=1e-8
    )


def test_two_binary_classes_are_linear():
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(200, 8, generator=generator) < 0.4).double()
    y = (x[:, 0] + x[:, 1] + torch.rand(200, generator=generator) > 1.2).long()
    found = Classifier(NaiveBayes(columns=("bernoulli",) * 8)).learn(x, y)
    theta = found.parameters(prior=False)
    theta["rate"] = theta["rate"].clamp(1e-3, 1 - 1e-3)
    weights, offset = linear(found.columns, theta)
    every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=8)), dtype=torch.float64)
    table = found.log_joint(every, theta)
    torch.testing.assert_close(every @ weights + offset, table[:, 1] - table[:, 0], rtol=0, atol=1e-12)
    assert torch.equal(every @ weights + offset > 0, table.argmax(-1) == 1)


def test_gaussian_classes_are_linear_only_where_variances_agree():
    theta = {
        "class_prob": torch.tensor([0.3, 0.7]),
        "loc": torch.tensor([[0.0, 1.0], [2.0, -1.0]]),
        "precision": torch.ones(2, 2) * torch.tensor([1.0, 4.0]),
    }
    found = Classifier(NaiveBayes(columns=("gaussian",) * 2))
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    weights, offset = linear(found.columns, theta)
    table = found.log_joint(x, theta)
    torch.testing.assert_close(x @ weights + offset, table[:, 1] - table[:, 0], rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="quadratic"):
        linear(found.columns, theta | {"precision": torch.tensor([[1.0, 4.0], [2.0, 4.0]])})


def test_a_column_told_often_scales_the_odds_and_makes_sure_but_wrong():
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(2, (4000,), generator=generator)
    x = (torch.rand(4000, 4, generator=generator) < torch.where(y == 1, 0.6, 0.4)[:, None]).double()
    odds, errors, right = [], [], []
    for times in (1, 3, 9, 27):
        copied = torch.cat([x[:, :1].expand(-1, times), x[:, 1:]], -1)
        found = Classifier(NaiveBayes(columns=("bernoulli",) * copied.shape[1])).learn(copied[:2000], y[:2000])
        theta = found.parameters(prior=False)
        weights, _ = linear(found.columns, theta)
        odds.append(float(weights[:times].sum()))
        probability = found.predict_proba(copied[2000:], theta)
        errors.append(reliability(probability, y[2000:]).ece)
        right.append(float((probability.argmax(-1) == y[2000:]).double().mean()))
    np.testing.assert_allclose(odds, odds[0] * np.array([1, 3, 9, 27]), rtol=1e-12)
    assert errors == sorted(errors)
    assert errors[-1] > 0.3
    assert right[-1] < right[0]


def test_pieces_give_what_the_whole_gives_and_a_class_may_come_late():
    data = mixed(200)
    x, y = data.observed["x"], data.observed["y"]
    order = y.argsort()
    whole, pieces = learned(MIXED, data), Classifier(MIXED)
    for rows in order.split(17):  # the last class is absent from the first batches
        pieces.learn(x[rows], y[rows])
    torch.testing.assert_close(pieces.log_joint(x), whole.log_joint(x), rtol=1e-11, atol=1e-11)
    weights = Classifier(MIXED).learn(x, y, weight=torch.arange(200) % 3)
    repeated = Classifier(MIXED).learn(
        x.repeat_interleave(torch.arange(200) % 3, 0), y.repeat_interleave(torch.arange(200) % 3)
    )
    torch.testing.assert_close(weights.log_joint(x), repeated.log_joint(x), rtol=1e-11, atol=1e-11)


def test_float32_far_from_zero_keeps_its_digits():
    generator = torch.Generator().manual_seed(0)
    x = 1e4 + torch.randint(0, 64, (3000, 3), generator=generator) / 8  # exact in float32
    y = torch.randint(2, (3000,), generator=generator)
    model = NaiveBayes(columns=("gaussian",) * 3, center=(1e4,), scale=(2.0,))
    single, double = (Classifier(model).learn(x.to(t), y) for t in (torch.float32, torch.float64))
    torch.testing.assert_close(
        single.parameters(False)["precision"], double.parameters(False)["precision"], rtol=1e-10, atol=0
    )
    assert (single.predict(x) == double.predict(x)).all()


@pytest.mark.parametrize("kind", ["multinomial", "bernoulli"])
def test_sparse_text_is_dense_text(kind):
    random = np.random.default_rng(0)
    x = random.poisson(0.1, (300, 50)).astype(float)
    x = np.minimum(x, 1) if kind == "bernoulli" else x
    y, weight = random.integers(-1, 4, 300), random.random(300)
    model = NaiveBayes(classes=4, columns=(kind,) * 50)
    dense = Classifier(model).learn(x, y, weight)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that its CSR is in beta
        csr = torch.tensor(x).to_sparse_csr()
    for kept in (scipy.sparse.csr_matrix(x), csr, torch.tensor(x).to_sparse()):
        sparse = Classifier(model).learn(kept, y, weight)
        theta = sparse.parameters()
        for name, value in dense.parameters().items():
            torch.testing.assert_close(theta[name], value)
        torch.testing.assert_close(sparse.log_joint(kept, theta), dense.log_joint(x, theta))
    x[17, 3] = -1
    with pytest.raises(ValueError, match=r"x is -1\.0 in row 17, column 3"):
        Classifier(model).learn(scipy.sparse.csr_matrix(x), y)


def test_a_missing_value_says_nothing():
    data = mixed(80)
    x, y = data.observed["x"].clone(), data.observed["y"]
    generator = torch.Generator().manual_seed(1)
    holes = (torch.rand(x.shape, generator=generator) < 0.2) & torch.tensor([k != "multinomial" for k in MIXED.columns])
    x[holes] = math.nan
    found = Classifier(MIXED).learn(x, y)
    theta = found.parameters()
    table = found.log_joint(x, theta)
    for row in range(0, 80, 13):  # one row with holes is that row with fewer columns
        kept = [j for j in range(x.shape[1]) if not holes[row, j]]
        one = torch.zeros(1, x.shape[1], dtype=x.dtype) + math.nan
        one[0, kept] = x[row, kept]
        torch.testing.assert_close(found.log_joint(one, theta)[0], table[row])
        total = theta["class_prob"].log()
        for j in kept:
            alone = torch.full((1, x.shape[1]), math.nan, dtype=x.dtype)
            alone[0, 3:5] = 0.0
            alone[0, j] = x[row, j]
            total = total + (found.log_joint(alone, theta)[0] - theta["class_prob"].log())
        torch.testing.assert_close(total, table[row])
    real = x[:, 0][(y == 1) & ~holes[:, 0]]
    assert float(found.parameters(False)["loc"][1, 0]) == pytest.approx(float(real.mean()), rel=1e-12)


def test_pyro_program_is_the_hand_written_density():
    data = mixed(30)
    theta = learned(MIXED, data).parameters()
    for known in (True, False):
        y = data.observed["y"].clone()
        if not known:
            y[::3] = -1
        part = Data(30, observed={"y": y, "x": data.observed["x"]})
        trace = poutine.trace(condition(MIXED.model, data={**theta, **part.observed})).get_trace(part)
        trace.compute_log_prob()
        rows = sum(trace.nodes[name]["log_prob_sum"] for name in ("y", "x"))
        q, log_likelihood = MIXED.e_step(theta, part)
        assert float(rows) == pytest.approx(float(log_likelihood), rel=1e-12)
        assert float(MIXED.bound(q, theta, part)) == pytest.approx(float(log_likelihood), rel=1e-12)


def test_evidence_is_the_product_of_one_row_after_another():
    data = mixed(40)
    x, y = data.observed["x"], data.observed["y"].long()
    found, total = Classifier(MIXED), 0.0
    for row in range(40):
        total += float(found.log_joint(x[row : row + 1])[0, y[row]])
        found.learn(x[row : row + 1], y[row : row + 1])
    assert found.log_evidence() == pytest.approx(total, abs=1e-8)


def test_leave_one_out_is_fits_without_each_row():
    data = mixed(40)
    x, y = data.observed["x"].clone(), data.observed["y"].long()
    x[3, 0] = x[5, 1] = x[7, 2] = math.nan
    table = learned(MIXED, Data(40, observed={"x": x, "y": y})).leave_one_out(x, y)
    for row in range(40):
        rest = torch.arange(40) != row
        alone = Classifier(MIXED).learn(x[rest], y[rest]).log_joint(x[row : row + 1])[0]
        torch.testing.assert_close(table[row], alone, rtol=1e-9, atol=1e-9)


def test_exact_draws_have_the_moments_of_the_posterior():
    data = mixed(60)
    fit = exact.fit(MIXED, data, num_samples=4000)
    found = learned(MIXED, data)
    sums = found.sums
    for name, value in mean_of(MIXED, sums).items():
        draws = fit.draws[name][0]
        assert ((draws.mean(0) - value).abs() < 5 * draws.std(0) / 4000**0.5 + 1e-12).all(), name
    evidence = found.log_evidence()
    counts = data.observed["x"][:, 3:5]
    coefficient = float(((counts.sum(-1) + 1).lgamma() - (counts + 1).lgamma().sum(-1)).sum())
    assert fit.info["log_evidence"] == pytest.approx(evidence + coefficient, rel=1e-10)


def test_without_any_class_it_is_a_mixture_of_bernoullis_by_rows_or_by_batches():
    torch.manual_seed(0)
    rate = torch.tensor([[0.9, 0.8, 0.1, 0.2, 0.7], [0.2, 0.1, 0.8, 0.9, 0.3]], dtype=torch.float64)
    x = torch.bernoulli(rate[torch.randint(2, (400,))])
    model = NaiveBayes(columns=("bernoulli",) * 5)
    data = Data(400, observed={"x": x, "y": torch.full((400,), -1)})
    whole = em.fit(model, data, num_restarts=3)
    assert whole.trace["log_likelihood"].diff().min() > -1e-9
    theta = {name: value[0, 0] for name, value in whole.draws.items()}
    law = torch.distributions.Bernoulli(theta["rate"]).log_prob(x[:, None]).sum(-1) + theta["class_prob"].log()
    assert whole.info["log_likelihood"] == pytest.approx(float(law.logsumexp(-1).sum()), rel=1e-12)
    sums, score = model.statistics(theta, data)
    q, same = model.e_step(theta, data)
    torch.testing.assert_close(model.maximise(sums, True), model.m_step(q, data, True))
    assert float(score) == pytest.approx(float(same), rel=1e-12)
    entropy = -(q * q.log()).sum()
    assert float(model.expected_log_joint(sums, theta) + entropy) == pytest.approx(float(score), rel=1e-12)
    batches = em.fit(model, data, num_restarts=3, batch_size=100, tol=1e-11)
    assert batches.info["log_likelihood"] == pytest.approx(whole.info["log_likelihood"], abs=1e-4)


def test_rows_of_unknown_class_help():
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(2, (600,), generator=generator)
    x = torch.randn(600, 4, generator=generator, dtype=torch.float64) + 1.2 * truth[:, None]
    y = truth.clone()
    y[10:] = -1
    model = NaiveBayes(columns=("gaussian",) * 4, center=(0.6,), scale=(1.2,))
    fit = em.fit(model, Data(600, observed={"x": x, "y": y}), prior=True, num_restarts=3)
    assert fit.info["converged"]
    assert fit.trace["log_density"].diff().min() > -1e-9
    theta = {name: value[0, 0] for name, value in fit.draws.items()}
    few = Classifier(model).learn(x[:10], y[:10])
    right = [(p == truth)[10:].double().mean() for p in (few.predict(x), few.predict(x, theta))]
    assert right[1] > right[0] + 0.02


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([[0.0, 1, 2, 1, 0, 1, 0]], [3], "y is 3 in row 0; it must be 0 to 2, or -1"),
        ([[0.0, 2, 2, 1, 0, 1, 0]], [0], "x is 2.0 in row 0, column 1, where bernoulli wants 0 or 1"),
        ([[0.0, 1, 3, 1, 0, 1, 0]], [0], "x is 3.0 in row 0, column 2, where categorical wants a level from 0 to 2"),
        ([[0.0, 1, 2, -1, 0, 1, 0]], [0], "x is -1.0 in row 0, column 3, where multinomial wants a count"),
        ([[math.inf, 1, 2, 1, 0, 1, 0]], [0], "x is inf in row 0, column 0, where gaussian wants a finite number"),
        ([[0.0, 1, 2]], [0], r"x must be \(rows, 7\)"),
        ([[0.0, 1, 2, 1, 0, 1, 0]], [0, 1], "x has 1 rows and y has 2"),
    ],
)
def test_what_a_column_cannot_hold_is_named_and_nothing_is_learned(x, y, message):
    found = learned(MIXED, mixed(20))
    before = found.log_evidence()
    with pytest.raises(ValueError, match=message) as error:
        found.learn(torch.tensor(x), torch.tensor(y))
    assert "\n" not in str(error.value)
    assert found.log_evidence() == before


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": 0}, "classes must be at least 1"),
        ({"columns": ("gauss",)}, "columns must be of gaussian"),
        ({"columns": ("categorical",)}, "levels needs 1 numbers"),
        ({"alpha": 0.0}, "alpha must be positive"),
        ({"columns": ("gaussian",) * 2, "scale": (1.0, 2.0, 3.0)}, "scale needs 1 or 2 numbers"),
    ],
)
def test_wrong_fields_are_refused_in_one_line(fields, message):
    with pytest.raises(ValueError, match=message):
        NaiveBayes(**fields)


def test_the_exact_posterior_needs_every_class():
    data = mixed(20)
    data.observed["y"][4] = -1
    with pytest.raises(ValueError, match="the class of row 4 is unknown"):
        exact.fit(MIXED, data)
    empty = Classifier(NaiveBayes(columns=("gaussian",))).learn(torch.ones(3, 1), torch.zeros(3))
    with pytest.raises(ArithmeticError, match="real column 0 does not vary in class 0"):
        empty.parameters(prior=False)


def test_a_prior_for_the_data_follows_their_units():
    x = torch.randn(40, 2, dtype=torch.float64) * torch.tensor([0.1, 30.0]) + torch.tensor([13.0, -500.0])
    y = (x[:, 0] > 13).long()
    model = NaiveBayes.for_data(x)
    assert model.columns == ("gaussian", "gaussian")
    assert model.center == pytest.approx(x.mean(0).tolist())
    assert model.scale == pytest.approx(x.std(0, correction=0).tolist())
    scaled = (x - x.mean(0)) / x.std(0, correction=0)
    same = Classifier(NaiveBayes(columns=("gaussian",) * 2)).learn(scaled, y).predict_proba(scaled)
    torch.testing.assert_close(Classifier(model).learn(x, y).predict_proba(x), same, rtol=1e-9, atol=1e-9)
    mixed = torch.cat([x[:, :1], y[:, None].double()], 1)
    assert NaiveBayes.for_data(mixed, columns=("gaussian", "bernoulli")).center == (
        pytest.approx(float(x[:, 0].mean())),
    )
    with pytest.raises(ValueError, match="column 1 of x has no two values"):
        NaiveBayes.for_data(torch.stack([x[:, 0], torch.ones(40)], 1))


def test_samplers_run_many_chains_by_one_graph():
    data = mixed(20)
    with fresh(MIXED, (data,)) as own:
        density = Density.of(joint(own, (data,), {}), (data,), {})
        assert density.batched(3, compile=False).executor == "graph"  # not the program itself, chain by chain
