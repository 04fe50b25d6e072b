"""Learning by least risk, shrinkage, least squares, and logistic maxima with many features."""

import math

import pytest
import torch

from ppmodels.parametric.family import Irregular
from ppmodels.parametric.logistic_likelihood import existence_limit, high_dimensional, logistic_maximum
from ppmodels.parametric.risk import minimise_surrogate, minimise_zero_one, surrogate, zero_one
from ppmodels.parametric.shrinkage import james_stein, james_stein_risk, least_squares
from ppmodels.parametric.two_normals import TwoNormals

F64 = torch.float64
LAW = TwoNormals(
    torch.tensor([[0.0, 0.0], [1.0, 2.0]], dtype=F64), torch.tensor([[1.0, 0.3], [0.3, 2.0]], dtype=F64), 0.4
)


def test_the_posterior_of_two_normals_is_logistic():
    x, _ = LAW.sample(50, torch.Generator().manual_seed(0))
    laws = [torch.distributions.MultivariateNormal(loc, LAW.covariance) for loc in LAW.loc]
    low, high = (law.log_prob(x) + math.log(p) for law, p in zip(laws, (0.6, 0.4), strict=True))
    torch.testing.assert_close(LAW.posterior(x), (high - low).sigmoid(), rtol=1e-10, atol=1e-12)


def test_bayes_error_and_empirical_risk_at_one_over_root_n():
    apart = TwoNormals(torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=F64), torch.eye(2, dtype=F64))
    assert apart.bayes_error().item() == pytest.approx(0.158655, abs=1e-6)
    slope, offset = apart.plane()
    generator = torch.Generator().manual_seed(0)
    for rows in (100, 1600):
        gaps = []
        for _ in range(200):
            x, y = apart.sample(rows, generator)
            gaps.append(zero_one((2 * y - 1) * (x @ slope + offset)).mean().item() - 0.158655)
        told = math.sqrt(0.158655 * 0.841345 / rows)
        assert torch.tensor(gaps).square().mean().sqrt().item() == pytest.approx(told, rel=0.2)


@pytest.mark.parametrize("loss", ["logistic", "exponential", "hinge", "squared"])
def test_surrogates_lie_above_mistakes_and_lead_near_the_best_rule(loss):
    margin = torch.linspace(-3, 3, 101)
    assert (surrogate(margin, loss) >= zero_one(margin) - 1e-6).all()
    x, y = LAW.sample(120 if loss == "hinge" else 2000, torch.Generator().manual_seed(1))
    slope, offset = minimise_surrogate(x, y, loss, ridge=1e-3)
    assert LAW.risk(slope, offset) < LAW.bayes_error() + (0.03 if loss == "hinge" else 0.005)
    assert LAW.risk(slope, offset) >= LAW.bayes_error()

    def risk(w, b):
        return surrogate((2 * y - 1) * (x @ w + b), loss).mean() + 1e-3 / 2 * w.square().sum()

    for nudge in (0.97, 1.03):
        assert risk(slope * nudge, offset) > risk(slope, offset) < risk(slope, offset + nudge - 1)


def test_the_best_threshold_by_brute_force():
    torch.manual_seed(0)
    x, y = torch.randint(0, 6, (30, 2)).double(), torch.randint(0, 2, (30,))
    column, cut, sign, risk = minimise_zero_one(x, y)
    every = [
        zero_one((2 * y - 1) * s * (x[:, c] - t)).mean().item()
        for c in (0, 1)
        for t in [v - 0.5 for v in range(8)]
        for s in (-1, 1)
    ]
    assert risk == pytest.approx(min(every))
    assert risk == pytest.approx(zero_one((2 * y - 1) * sign * (x[:, column] - cut)).mean().item())
    with pytest.raises(ValueError, match="y is 2 in row 1"):
        minimise_zero_one(x[:2], torch.tensor([0, 2]))


def test_the_risk_of_james_and_stein():
    for dim in (3, 7, 20):
        assert james_stein_risk(dim, 0.0) == pytest.approx(2.0)
    assert james_stein_risk(10, 3.0) == pytest.approx(5.986, abs=5e-4)
    assert james_stein_risk(10, 10.0) == pytest.approx(9.397, abs=5e-4)
    assert james_stein_risk(10, 0.0, positive=True) == pytest.approx(1.257, abs=2e-3)
    assert james_stein_risk(2, 5.0) == 2
    torch.manual_seed(0)
    for norm in (0.0, 3.0):
        theta = torch.zeros(10, dtype=F64)
        theta[0] = norm
        y = theta + torch.randn(40_000, 10, dtype=F64)
        for positive in (False, True):
            loss = (james_stein(y, positive=positive) - theta).square().sum(-1)
            gap = loss.mean().item() - james_stein_risk(10, norm, positive)
            assert abs(gap) < 4 * loss.std().item() / 200
    assert torch.equal(james_stein(y[:, :2]), y[:, :2])
    torch.testing.assert_close(james_stein(3 * y + 1, noise=3.0, target=1.0), 3 * james_stein(y) + 1)


def test_least_squares_projects_and_ridge_tames_it():
    torch.manual_seed(0)
    design, truth = torch.randn(40, 3, dtype=F64), torch.ones(3, dtype=F64)
    errors = {}
    for small in (1e-2, 1e-4):
        left, _, right = torch.linalg.svd(design, full_matrices=False)
        bad = left @ torch.tensor([2.0, 1.0, small], dtype=F64).diag() @ right
        y = bad @ truth + 0.1 * torch.randn(300, 40, dtype=F64)
        found = [least_squares(bad, one) for one in y]
        errors[small] = torch.stack([coef - truth for coef, _ in found]).square().sum(-1).mean().sqrt().item()
        fitted = found[0][1]
        torch.testing.assert_close(least_squares(bad, fitted)[1], fitted)
        torch.testing.assert_close(bad.mT @ (y[0] - fitted), torch.zeros(3, dtype=F64), rtol=0, atol=1e-9)
        tame = torch.stack([least_squares(bad, one, ridge=0.01)[0] for one in y]) - truth
        assert tame.square().sum(-1).mean().sqrt().item() < 2
    assert errors[1e-4] / errors[1e-2] == pytest.approx(100, rel=0.15)


@pytest.mark.parametrize(
    ("kappa", "gamma", "told"),
    [(0.2, math.sqrt(5), (1.4994, 4.7436, 3.0269)), (0.1, math.sqrt(5), (1.1678,)), (0.1, 1.0, (1.1238,))],
)
def test_how_wrong_logistic_regression_is_with_many_features(kappa, gamma, told):
    law = high_dimensional(kappa, gamma)
    found = (law.bias, law.spread, law.inflation)[: len(told)]
    assert found == pytest.approx(told, abs=2e-4)


def test_where_the_maximum_does_not_exist():
    assert existence_limit(1e-6) == pytest.approx(0.5, abs=1e-4)
    assert 0.2 < existence_limit(math.sqrt(5)) < 0.5
    with pytest.raises(Irregular, match="a plane tells classes apart"):
        high_dimensional(0.4, math.sqrt(5))
    x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]], dtype=F64)
    with pytest.raises(Irregular, match="a plane tells the classes apart"):
        logistic_maximum(x, torch.tensor([0, 0, 1, 1]))
    with pytest.raises(Irregular, match="columns depend"):
        logistic_maximum(torch.cat([x, x], 1), torch.tensor([0, 1, 0, 1]))


def simulated(rows, features, seed):
    """The slope of fitted on true coefficients."""
    generator = torch.Generator().manual_seed(seed)
    design = torch.randn(rows, features, generator=generator, dtype=F64) / math.sqrt(rows)
    coef = torch.randn(features, generator=generator, dtype=F64)
    coef = coef * math.sqrt(5 * rows) / coef.norm()
    y = (torch.rand(rows, generator=generator, dtype=F64) < (design @ coef).sigmoid()).long()
    found, information = logistic_maximum(design, y)
    assert (design.mT @ (y - (design @ found).sigmoid())).abs().max() < 1e-6
    assert torch.linalg.eigvalsh(information).min() > 0
    return float(found @ coef / coef.square().sum())


def test_a_small_simulation_shows_the_slope():
    rows, kappa, gamma = 500, 0.1, math.sqrt(5)
    slopes = torch.tensor([simulated(rows, int(kappa * rows), seed) for seed in range(12)])
    law = high_dimensional(kappa, gamma)
    assert slopes.mean().item() == pytest.approx(law.bias, rel=0.05)


@pytest.mark.slow
def test_the_simulation_of_the_notes():
    slopes = torch.tensor([simulated(4000, 800, seed) for seed in range(12)])  # one alone has an sd of 4 per cent
    assert slopes.mean().item() == pytest.approx(1.4994, rel=0.05)
    assert abs(slopes.mean().item() - 1.4994) < 4 * slopes.std().item() / math.sqrt(12)
