"""Families: maxima, information, intervals, censoring, weights, and where the theory fails."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from ppmodels.parametric._incomplete_gamma import log_gamma_cdf, log_gamma_survival
from ppmodels.parametric.continuous import Exponential, Gamma, Laplace, Normal, StudentT, Uniform, end_interval
from ppmodels.parametric.discrete import Bernoulli, Poisson
from ppmodels.parametric.efficiency import cramer_rao
from ppmodels.parametric.estimate import Estimate, bootstrap, maximum_likelihood
from ppmodels.parametric.family import Irregular
from ppmodels.parametric.sample import Sample

F64 = torch.float64
TRUTHS = {
    Bernoulli(): ([0.3], lambda n: stats.bernoulli(0.3).rvs(n)),
    Poisson(): ([2.5], lambda n: stats.poisson(2.5).rvs(n)),
    Exponential(): ([0.7], lambda n: stats.expon(scale=1 / 0.7).rvs(n)),
    Normal(): ([1.0, 4.0], lambda n: stats.norm(1, 2).rvs(n)),
    Gamma(): ([3.0, 0.5], lambda n: stats.gamma(3, scale=0.5).rvs(n)),
    StudentT(4.0): ([1.0, 2.0], lambda n: stats.t(4, 1, 2).rvs(n)),
}
EVERY = pytest.mark.parametrize("family", TRUTHS, ids=repr)


def drawn(family, *shape):
    np.random.seed(1)
    truth, draw = TRUTHS[family]
    return torch.tensor(truth, dtype=F64), torch.as_tensor(draw(shape), dtype=F64)


@EVERY
def test_maxima_have_no_slope_and_no_neighbour_is_better(family):
    _, x = drawn(family, 3, 60)
    fit = maximum_likelihood(family, x)
    assert fit.score().abs().max() < 1e-6 * 60
    for nudge in (0.99, 1.01):
        assert (family.log_prob(x, fit.theta * nudge).sum(-1) < fit.log_likelihood).all()


def test_closed_forms_are_what_steps_of_newton_reach():
    for family in (Poisson(), Exponential(), Normal()):
        _, x = drawn(family, 2, 40)
        closed = maximum_likelihood(family, x)
        climbed = maximum_likelihood(family, x, censored=torch.zeros(40))
        torch.testing.assert_close(climbed.theta, closed.theta, rtol=1e-6, atol=1e-6)
    x = torch.tensor([1.0, 0, 0, 1, 0], dtype=F64)
    p = torch.tensor([0.4], dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(Bernoulli().log_prob(x, p).sum(), p)
    assert slope.abs().item() < 1e-12
    assert maximum_likelihood(Bernoulli(), x).theta.item() == 0.4


def test_gamma_and_student_agree_with_scipy():
    _, x = drawn(Gamma(), 200)
    shape, _, scale = stats.gamma.fit(x.numpy(), floc=0)
    peer = torch.tensor([shape, scale], dtype=F64)
    torch.testing.assert_close(maximum_likelihood(Gamma(), x).theta, peer, rtol=1e-5, atol=0)
    _, x = drawn(StudentT(4.0), 200)
    _, loc, scale = stats.t.fit(x.numpy(), fdf=4)
    assert maximum_likelihood(StudentT(4.0), x)["scale"].item() == pytest.approx(scale, rel=1e-3)
    assert maximum_likelihood(StudentT(4.0), x)["loc"].item() == pytest.approx(loc, abs=1e-3)


@EVERY
def test_score_has_mean_zero_and_information_is_its_variance_and_minus_the_curvature(family):
    truth, x = drawn(family, 40_000)
    at_truth = Estimate(family, Sample.of(family, x), truth, family.log_prob(x, truth).sum())
    score = at_truth.score_rows()  # (N, P)
    information = family.information(truth)
    scale = (information.diagonal() / len(x)).sqrt()
    assert ((score.mean(0) / scale).abs() < 4).all()
    products = score[:, :, None] * score[:, None]
    assert (((products.mean(0) - information) / (products.std(0) / 200 + 1e-12)).abs() < 4).all()
    observed = at_truth.observed_information() / len(x)
    torch.testing.assert_close(observed, information, rtol=0.05, atol=0.02 * information.diagonal().max().item())


def test_information_by_formula_and_additive_over_rows():
    for family, theta, told in (
        (Bernoulli(), [0.3], [[1 / 0.21]]),
        (Poisson(), [2.5], [[0.4]]),
        (Exponential(), [0.5], [[4.0]]),
        (Normal(), [3.0, 2.0], [[0.5, 0], [0, 0.125]]),
        (Gamma(), [1.0, 2.0], [[math.pi**2 / 6, 0.5], [0.5, 0.25]]),
        (Laplace(), [0.0, 2.0], [[0.25, 0], [0, 0.25]]),
        (StudentT(1.0), [0.0, 1.0], [[0.5, 0], [0, 0.5]]),
    ):
        torch.testing.assert_close(family.information(torch.tensor(theta, dtype=F64)), torch.tensor(told, dtype=F64))
    fit = maximum_likelihood(Poisson(), torch.tensor([1.0, 2, 3, 6], dtype=F64))
    assert fit.expected_information().item() == pytest.approx(4 / 3)
    assert fit.observed_information().item() == pytest.approx(4 / 3)


def test_a_jumping_score_has_expected_but_no_observed_information():
    torch.manual_seed(0)
    x = torch.distributions.Laplace(0.0, 1.0).sample((51,)).double()
    fit = maximum_likelihood(Laplace(), x)
    assert fit["loc"] == x.median()
    nudged = fit.theta + torch.tensor([1e-6, 0.0])
    assert fit.observed_information(nudged)[0, 0] == 0
    assert fit.standard_errors()[0].item() == pytest.approx(fit["scale"].item() / math.sqrt(51))
    with pytest.raises(Irregular, match="jumps"):
        fit.standard_errors("observed")


def test_the_end_of_a_uniform_law_is_refused_and_has_its_own_interval():
    torch.manual_seed(0)
    x = 3 * torch.rand(4000, 20, dtype=F64)
    fit = maximum_likelihood(Uniform(), x)
    assert torch.equal(fit["end"], x.amax(-1))
    for ask in (fit.standard_errors, fit.wald, fit.profile, fit.expected_information, fit.covariance):
        with pytest.raises(Irregular, match="support ends at the parameter"):
            ask()
    low, high = end_interval(fit["end"], 20).unbind(-1)
    covered = ((low <= 3) & (high >= 3)).double().mean().item()
    assert covered == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 4000))
    errors = [maximum_likelihood(Uniform(), x[:, :n])["end"].var().item() for n in (5, 20)]
    told = (5 / (36 * 7)) / (20 / (441 * 22))  # n / ((n + 1)^2 (n + 2)): as 1 / n^2, not 1 / n
    assert errors[0] / errors[1] == pytest.approx(told, rel=0.15)


@pytest.mark.parametrize(
    ("family", "x", "why"),
    [
        (Bernoulli(), [[0, 1, 1], [1, 1, 1]], "data set 1: all rows are alike"),
        (Poisson(), [0, 0, 0], "all counts are 0"),
        (Exponential(), [0.0, 0.0], "all waits are 0"),
        (Normal(), [2.0, 2.0, 2.0], "as variance goes to 0"),
        (Gamma(), [2.0, 2.0, 2.0], "grows without end"),
        (Laplace(), [1.0, 1.0], "as scale goes to 0"),
    ],
)
def test_peaks_at_the_edge_are_refused_with_the_reason(family, x, why):
    with pytest.raises(Irregular, match=why):
        maximum_likelihood(family, x).standard_errors()


@pytest.mark.parametrize(
    ("family", "x", "options", "said"),
    [
        (Poisson(), [1, 2.5], {}, "x is 2.5 in row 1; Poisson.. takes counts"),
        (Gamma(), [[1.0, 2.0], [1.0, 0.0]], {}, "x is 0 in row 1 of data set 1"),
        (Normal(), [1.0, math.nan], {}, "x is nan in row 1"),
        (Normal(), [1.0, 2.0], {"weight": [1.0, -1.0]}, "weight is -1 in row 1"),
        (Normal(), [1.0, 2.0], {"weight": [0.0, 0.0]}, "nothing is left"),
        (Normal(), [1.0, 2.0], {"weight": [1.0, 1.0, 1.0]}, "must broadcast"),
        (Normal(), [1.0, 2.0], {"censored": [0, 2]}, "censored is 2 in row 1"),
        (Exponential(), [1.0, 2.0], {"censored": [1, 1]}, "censored on one side"),
        (Bernoulli(), [0, 1, 1], {"censored": [0, 1, 0]}, "takes no censored rows"),
        (Normal(), [], {}, "at least one row"),
    ],
)
def test_bad_rows_are_named(family, x, options, said):
    with pytest.raises(ValueError, match=said):
        maximum_likelihood(family, x, **options)


def test_weights_count_rows_and_zero_leaves_them_out():
    _, x = drawn(Gamma(), 12)
    weight = torch.tensor([2.0] * 4 + [1.0] * 4 + [0.0] * 4)
    long = maximum_likelihood(Gamma(), torch.cat([x[:4], x[:8]]))
    x[8:] = math.nan  # what does not count need not be a number
    short = maximum_likelihood(Gamma(), x, weight)
    torch.testing.assert_close(short.theta, long.theta)
    for kind in ("observed", "expected", "sandwich"):
        torch.testing.assert_close(short.covariance(kind), long.covariance(kind))


def test_thousands_of_data_sets_are_one_call_and_each_is_as_if_alone():
    _, x = drawn(Gamma(), 2000, 15)
    fit = maximum_likelihood(Gamma(), x)
    assert fit.theta.shape == (2000, 2)
    assert fit.standard_errors().shape == (2000, 2)
    for index in (0, 999):
        torch.testing.assert_close(fit.theta[index], maximum_likelihood(Gamma(), x[index]).theta, rtol=1e-7, atol=0)


def test_censored_rows_by_formula_and_by_scipy():
    _, wait = drawn(Exponential(), 50)
    cut = wait > 1.5
    fit = maximum_likelihood(Exponential(), wait.clamp(max=1.5), censored=cut)
    events = (~cut).sum()
    assert fit["rate"].item() == pytest.approx((events / wait.clamp(max=1.5).sum()).item())
    assert fit.standard_errors().item() == pytest.approx((fit["rate"] / events.sqrt()).item())
    for family, law, fixed in ((Gamma(), stats.gamma, {"floc": 0}), (Normal(), stats.norm, {})):
        _, x = drawn(family, 60)
        cut = x > 1.8
        censored = stats.CensoredData.right_censored(x.clamp(max=1.8).numpy(), cut.numpy())
        found = law.fit(censored, **fixed)
        peer = [found[0], found[2]] if fixed else [found[0], found[1] ** 2]
        fit = maximum_likelihood(family, x.clamp(max=1.8), censored=cut)
        torch.testing.assert_close(fit.theta, torch.tensor(peer, dtype=F64), rtol=2e-3, atol=1e-3)
        assert fit.score().abs().max() < 1e-6
        with pytest.raises(Irregular, match="how rows were cut"):
            fit.expected_information()
    _, x = drawn(Poisson(), 30)
    fit = maximum_likelihood(Poisson(), x.clamp(min=1), censored=-(x <= 1).long())

    def told(r):
        return stats.poisson.logpmf(x[x > 1], r).sum() + (x <= 1).sum().item() * stats.poisson.logcdf(1, r)

    assert fit.log_likelihood.item() == pytest.approx(told(fit["rate"].item()))
    assert max(told(fit["rate"].item() + d) for d in (-0.01, 0.01)) < fit.log_likelihood.item()


def test_incomplete_gamma_on_both_sides():
    shape = torch.tensor([0.05, 0.5, 1, 3, 50, 500, 1e4], dtype=F64)[:, None]
    x = torch.tensor([0.01, 0.5, 1.0, 1.5, 3], dtype=F64) * shape
    for ours, peer in ((log_gamma_cdf, stats.gamma.logcdf), (log_gamma_survival, stats.gamma.logsf)):
        told = torch.as_tensor(peer(x, shape))
        there = told.isfinite() & (told > -600)
        torch.testing.assert_close(ours(shape, x)[there], told[there], rtol=1e-9, atol=1e-9)
    both = tuple(torch.tensor([value], dtype=F64, requires_grad=True) for value in (2.0, 1.3))
    assert torch.autograd.gradcheck(log_gamma_cdf, both)
    assert torch.autograd.gradgradcheck(log_gamma_survival, both)


def test_profiles_are_where_twice_the_fall_is_chi_squared():
    _, x = drawn(Normal(), 2, 25)
    fit = maximum_likelihood(Normal(), x)
    ends = fit.profile()
    fall = stats.chi2(1).ppf(0.95)
    variance = fit["variance"]
    reach = (variance * math.expm1(fall / 25)).sqrt()  # of the mean, with the variance maximised out
    told = torch.stack([fit["mean"] - reach, fit["mean"] + reach], -1)
    torch.testing.assert_close(ends[:, 0], told, rtol=1e-7, atol=1e-9)
    ratio = variance[:, None] / ends[:, 1]
    torch.testing.assert_close(25 * (ratio - ratio.log() - 1), torch.full((2, 2), fall, dtype=F64), rtol=1e-6, atol=0)
    assert (ends[:, 1, 0] > 0).all()
    fit = maximum_likelihood(Bernoulli(), torch.tensor([1.0] + 9 * [0.0], dtype=F64))
    assert fit.wald()[0, 0] < 0 < fit.profile()[0, 0]  # a profile stays within the range


@EVERY
def test_profiles_of_every_family_hold_their_maximum(family):
    _, x = drawn(family, 2, 30)
    fit = maximum_likelihood(family, x)
    ends = fit.profile()
    assert ((ends[..., 0] < fit.theta) & (fit.theta < ends[..., 1])).all()
    assert ((ends - fit.wald()).abs() < 0.6 * (fit.wald()[..., 1:] - fit.wald()[..., :1])).all()


def test_equivariance_and_the_delta_method():
    _, x = drawn(Exponential(), 3, 30)
    fit = maximum_likelihood(Exponential(), x)
    mean, error = fit.transformed(lambda theta: 1 / theta)
    torch.testing.assert_close(mean[..., 0], x.mean(-1))
    torch.testing.assert_close(error[..., 0], x.mean(-1) / math.sqrt(30))


def test_consistency_coverage_and_normal_scores():
    truth, x = drawn(Exponential(), 4000, 500)
    sizes = (20, 80, 320)
    errors = [(maximum_likelihood(Exponential(), x[:, :n]).theta - truth).square().mean().sqrt().item() for n in sizes]
    assert np.polyfit(np.log(sizes), np.log(errors), 1)[0] == pytest.approx(-0.5, abs=0.06)
    _, x = drawn(Normal(), 10_000, 500)
    fit = maximum_likelihood(Normal(), x)
    low, high = fit.wald(kind="expected")[:, 0].unbind(-1)
    assert ((low < 1) & (high > 1)).double().mean().item() == pytest.approx(0.95, abs=0.01)
    z = (fit["mean"] - 1) / fit.standard_errors("expected")[:, 0]
    assert stats.kstest(z.numpy(), "norm").pvalue > 0.01


def test_the_median_costs_half_pi():
    torch.manual_seed(3)
    x = torch.randn(20_000, 301)
    ratio = (x.median(-1).values.var() / x.mean(-1).var()).item()
    assert ratio == pytest.approx(math.pi / 2, rel=4 * math.sqrt(4 / 20_000))


def test_the_sandwich_is_right_where_the_family_is_wrong():
    torch.manual_seed(0)
    counts = torch.distributions.NegativeBinomial(2.0, torch.tensor(0.6)).sample((4000, 200)).double()
    fit = maximum_likelihood(Poisson(), counts)
    spread = fit.theta.std().item()
    assert fit.standard_errors("sandwich").mean().item() == pytest.approx(spread, rel=0.06)
    assert fit.standard_errors().mean().item() < 0.75 * spread


def test_bootstrap_spreads_as_the_standard_error():
    _, x = drawn(Exponential(), 200)
    fit = maximum_likelihood(Exponential(), x)
    assert bootstrap(Exponential(), x).std(0).item() == pytest.approx(fit.standard_errors("sandwich").item(), rel=0.15)


def test_cramer_rao_with_bias_is_met_by_a_shrunken_mean():
    noise, rows, theta, a = 4.0, 10, 1.7, 0.8
    information = torch.tensor([[rows / noise]], dtype=F64)
    bound = cramer_rao(information, torch.tensor([(a - 1) * theta], dtype=F64), torch.tensor([[a - 1]], dtype=F64))
    assert bound.item() == pytest.approx(a**2 * noise / rows + (1 - a) ** 2 * theta**2, rel=1e-12)
    assert cramer_rao(information).item() == pytest.approx(noise / rows)
    with pytest.raises(ValueError, match="both"):
        cramer_rao(information, bias=torch.zeros(1))


def test_cramer_rao_of_vectors_and_equality_only_for_the_mean_parameter():
    truth, x = drawn(Gamma(), 20_000, 12)
    bound = cramer_rao(12 * Gamma().information(truth))
    mean = x.mean(-1)  # of a gamma law is shape * scale: the slope of that in theta is (scale, shape)
    slope = truth.flip(0)
    assert (slope @ bound @ slope).item() == pytest.approx(mean.var().item(), rel=0.05)
    moments = torch.stack([mean**2 / x.var(-1), x.var(-1) / mean], -1)  # biased and inefficient
    error = moments - truth
    excess = error.mT @ error / len(x) - bound
    assert torch.linalg.eigvalsh(excess).min() > 0
    rates = 11 / drawn(Exponential(), 20_000, 12)[1].sum(-1)  # unbiased for the rate, which is no mean parameter
    assert rates.mean().item() == pytest.approx(0.7, rel=0.01)
    assert rates.var().item() > 1.1 * cramer_rao(12 * Exponential().information(torch.tensor([0.7]))).item()


def test_dtype_follows_the_data():
    fit = maximum_likelihood(Gamma(), torch.tensor([1.0, 2.0, 0.5, 4.0]))
    assert fit.theta.dtype == torch.float32
    assert fit.standard_errors().dtype == torch.float32
