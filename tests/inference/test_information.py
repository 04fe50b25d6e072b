"""Standard errors and intervals of points, against textbooks, against closed forms, and where there are none."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import ppmodels
from inference import Unsupported, em, mcmc, mode
from inference.information import covariance, profile, standard_errors, wald
from inference.predict import simulate
from ppmodels import Data
from ppmodels.classification.logistic import LogisticRegression
from ppmodels.classification.logistic_mode import newton, precision
from ppmodels.clustering.gmm import GaussianMixture
from ppmodels.clustering.selection import standard_errors as of_mixture
from ppmodels.datasets import old_faithful
from ppmodels.parametric.continuous import Gamma
from ppmodels.parametric.estimate import maximum_likelihood

pytestmark = pytest.mark.usefixtures("double_precision")


def risk(days, died):
    rate = pyro.sample("rate", dist.LogNormal(-6.0, 2.0))
    with pyro.plate("rows", len(days)):
        pyro.sample("days", dist.Exponential(rate).mask(died), obs=days)
        pyro.sample("outlived", dist.Bernoulli((-rate * days).exp()).mask(~died), obs=torch.ones_like(days))


def test_censored_hearts_have_the_errors_of_the_books():
    hearts = pytest.importorskip("statsmodels.datasets").heart.load_pandas().data
    days, died = torch.tensor(hearts["survival"].to_numpy()), torch.tensor(hearts["censors"].to_numpy() == 1)
    fit = mode.fit(risk, days, died, prior=False)
    deaths, total = int(died.sum()), float(days.sum())
    rate = deaths / total
    assert (deaths, float(fit.draws["rate"])) == (45, pytest.approx(rate, rel=1e-6))
    assert float(standard_errors(fit)["rate"]) == pytest.approx(rate / deaths**0.5, rel=1e-5)
    score = died.double() / rate - days
    robust = float(score.square().sum().sqrt()) / (deaths / rate**2)
    assert float(standard_errors(fit, kind="sandwich")["rate"]) == pytest.approx(robust, rel=1e-4)
    for end in profile(fit, "rate"):
        fallen = deaths * (torch.tensor(rate / end).log() + end / rate - 1)
        assert float(fallen) == pytest.approx(1.959964**2 / 2, abs=1e-4)


def normal(x):
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(loc, scale), obs=x)
    pyro.deterministic("ratio", loc / scale)


def gamma(x):
    shape = pyro.sample("shape", dist.LogNormal(0.0, 1.0))
    rate = pyro.sample("rate", dist.LogNormal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Gamma(shape, rate), obs=x)


def logistic(rows=80):
    model = LogisticRegression(features=2, spread=2.0)
    x = torch.randn(rows, 2)
    y = (torch.rand(rows) < (x @ torch.tensor([1.0, -0.5])).sigmoid()).double()
    return model, Data.of(model, x=x, y=y)


def skewed(rows=200):
    return torch.distributions.Gamma(2.0, 0.5).sample((rows,))


def test_a_normals_errors_are_the_textbooks_and_its_sandwich_knows_of_skewness():
    x = skewed()
    fit = mode.fit(normal, x, prior=False)
    n, s = len(x), x.std(correction=0)
    assert float(fit.draws["loc"]) == pytest.approx(float(x.mean()), abs=1e-6)
    assert float(fit.draws["scale"]) == pytest.approx(float(s), abs=1e-6)
    errors = fit.standard_errors()
    assert float(errors["loc"]) == pytest.approx(float(s / n**0.5), rel=1e-6)
    assert float(errors["scale"]) == pytest.approx(float(s / (2 * n) ** 0.5), rel=1e-6)
    ratio = x.mean() / s
    assert float(errors["ratio"]) == pytest.approx(float((1 / n + ratio**2 / (2 * n)) ** 0.5), rel=1e-5)  # delta method
    z = (x - x.mean()) / s
    robust = fit.standard_errors(kind="sandwich")
    assert float(robust["loc"]) == pytest.approx(float(s / n**0.5), rel=1e-6)
    assert float(robust["scale"]) == pytest.approx(float(s * (((z**2 - 1) ** 2).mean() / (4 * n)) ** 0.5), rel=1e-5)
    low, high = wald(fit, 0.95)["loc"].tolist()
    assert (low, high) == pytest.approx(
        (float(x.mean() - 1.959964 * s / n**0.5), float(x.mean() + 1.959964 * s / n**0.5))
    )


def test_a_family_agrees_with_parametric_in_errors_and_profiles():
    x = skewed(60)
    fit, theirs = mode.fit(gamma, x, prior=False), maximum_likelihood(Gamma(), x)
    own = {name: theirs[name] for name in theirs.family.parameters}
    wanted = dict(zip(own, theirs.standard_errors(), strict=True))
    for name in ("shape", *({"rate"} & own.keys())):
        assert float(fit.draws[name]) == pytest.approx(float(own[name]), rel=1e-5)
        assert float(fit.standard_errors()[name]) == pytest.approx(float(wanted[name]), rel=1e-4)
    low, high = profile(fit, "shape")
    place = theirs.family.parameters.index("shape")
    assert [low, high] == pytest.approx(theirs.profile()[place].tolist(), rel=1e-4)


def test_a_posterior_mode_has_the_curvature_of_its_density():
    model, data = logistic()
    fit, coef = mode.fit(model, data), newton(model, data)
    torch.testing.assert_close(fit.draws["coef"][0, 0], coef, rtol=0, atol=1e-6)
    torch.testing.assert_close(covariance(fit), torch.linalg.inv(precision(model, data, coef)), rtol=1e-6, atol=1e-9)


def test_sandwich_of_logistic_regression_by_hand():
    model, data = logistic()
    fit = mode.fit(model, data, prior=False)
    design, coef = model.design(data), fit.draws["coef"][0, 0]
    share = (design @ coef).sigmoid()
    bread = torch.linalg.inv(design.T @ (design * (share * (1 - share))[:, None]))
    scores = design * (data.observed["y"] - share)[:, None]
    assert scores.sum(0).abs().max() < 1e-5
    torch.testing.assert_close(covariance(fit, "sandwich"), bread @ scores.T @ scores @ bread, rtol=1e-4, atol=1e-8)


def test_weights_are_repetitions_and_zero_leaves_a_row_out():
    model, data = logistic(40)
    often = torch.arange(40) % 4
    rows = torch.arange(40).repeat_interleave(often)
    many = Data(len(rows), {"x": data.given["x"][rows]}, {"y": data.observed["y"][rows]})
    for prior in (True, False):
        ours, theirs = mode.fit(model, data, weight=often, prior=prior), mode.fit(model, many, prior=prior)
        torch.testing.assert_close(ours.draws["coef"], theirs.draws["coef"], rtol=0, atol=1e-6)
        for kind in ("observed", "sandwich"):
            torch.testing.assert_close(covariance(ours, kind), covariance(theirs, kind), rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match=r"weight is -1\.0 in row 3"):
        mode.fit(model, data, weight=torch.where(torch.arange(40) == 3, -1.0, 1.0))
    with pytest.raises(ValueError, match=r"weight must be \(40,\)"):
        mode.fit(model, data, weight=torch.ones(3))


def test_em_carries_them_and_they_are_the_mixtures_own():
    data = old_faithful()
    model = GaussianMixture.for_data(data.observed["x"], components=2)
    fit = em.fit(model, data, num_restarts=2, tol=1e-13)
    theta = {name: value[0, 0] for name, value in fit.draws.items()}
    for kind, sandwich in (("observed", False), ("sandwich", True)):
        wanted = of_mixture(model, theta, data, sandwich=sandwich)
        found = standard_errors(fit, kind)  # pyright: ignore[reportArgumentType]
        for name, value in wanted.items():
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-8)
    assert found["covariance"].shape == (2, 2, 2)


def test_where_the_theory_fails_it_is_said():
    def uniform(x):
        end = pyro.sample("end", dist.LogNormal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Uniform(0.0, end + x.max(), validate_args=False), obs=x)

    def twice(x):
        a, b = (pyro.sample(name, dist.Normal(0.0, 1.0)) for name in "ab")
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(a + b, 1.0), obs=x)

    x = torch.rand(20)
    with pytest.raises(Unsupported, match=r"no regular peak: .*site '[ab]'"):
        mode.fit(twice, x, prior=False).standard_errors()
    with pytest.raises(Unsupported, match=r"no regular peak: .*site 'end'"):
        mode.fit(uniform, x, prior=False).standard_errors()

    def edge(x):  # a share of nought: its peak is at the edge
        share = pyro.sample("share", dist.Uniform(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Bernoulli(share), obs=x)

    with pytest.raises(Unsupported, match=r"no regular peak: .*site 'share'"):
        mode.fit(edge, torch.zeros(20), prior=False).standard_errors()

    def laplace(x):
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Laplace(loc, 1.0), obs=x)

    with pytest.raises(Unsupported, match="does not fall along site 'loc', or has a kink"):
        mode.fit(laplace, torch.randn(21), prior=False).standard_errors()

    def rows_of_their_own(x):
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            u = pyro.sample("u", dist.Normal(0.0, scale))
            pyro.sample("x", dist.Normal(u, 1.0), obs=x)

    with pytest.raises(Unsupported, match="site 'u' has a value a row, which a likelihood integrates out"):
        mode.fit(rows_of_their_own, x, prior=False)
    with pytest.raises(Unsupported, match="this is for points"):
        mcmc.fit(normal, x, num_chains=4, num_samples=10, num_warmup=10, compile=False).standard_errors()
    mixture = GaussianMixture.for_data(old_faithful().observed["x"])
    with pytest.raises(Unsupported, match="only em does that"):
        mode.fit(mixture, old_faithful(), weight=torch.ones(272))


@pytest.mark.slow
@pytest.mark.parametrize("name", ppmodels.names())
def test_the_mode_of_every_model_has_errors_or_says_why_not(name):
    model = ppmodels.load(name)()
    data, _ = simulate(model, 40, seed=1)
    try:
        fit = mode.fit(model, data, num_restarts=2, num_steps=300)
    except Unsupported as reason:
        pytest.skip(str(reason))
    try:
        errors, said = standard_errors(fit), ""
    except Unsupported as reason:
        errors, said = None, str(reason)
    assert "\n" not in said
    if errors is None:
        return
    assert errors.keys() >= fit.draws.keys()
    for site, draw in fit.draws.items():
        assert errors[site].shape == draw.shape[2:]
        assert (errors[site] >= 0).all()
        assert errors[site].isfinite().all()
