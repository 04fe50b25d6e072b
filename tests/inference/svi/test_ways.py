"""The ways to a guide: path, score and natural gradients, fixed draws; and both divergences. Against closed forms."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from inference import svi
from inference.base import Unsupported, fresh, joint
from inference.density import Density
from inference.optimum.lbfgs import maximise
from inference.svi.ascent import best_restart, score_gradient
from inference.svi.guides import FullRank, MeanField
from inference.svi.objective import Objective, Survey
from ppmodels import Data
from ppmodels.classification.logistic import LogisticRegression
from ppmodels.classification.logistic_posterior import elbo
from ppmodels.clustering.dirichlet_process import DirichletProcessMixture

pytestmark = pytest.mark.usefixtures("double_precision")
RHO = 0.9
APART = -0.5 * math.log(1 - RHO**2)  # 0.8304 nats


def pair(covariance):
    pyro.sample("x", dist.MultivariateNormal(torch.tensor([500.0, -3.0]), covariance))


def two_wells():
    x = pyro.sample("x", dist.Normal(0.0, 10.0))
    wells = torch.logaddexp(-8 * (x - 2) ** 2, -8 * (x + 2) ** 2)
    pyro.factor("wells", wells - dist.Normal(0.0, 10.0).log_prob(x))


def polynomial(t, y, degree):
    w = pyro.sample("w", dist.Normal(torch.zeros(degree + 1), 1.0).to_event(1))
    with pyro.plate("rows", len(t)):
        pyro.sample("y", dist.Normal(torch.stack([t**i for i in range(degree + 1)], -1) @ w, 0.3), obs=y)


def polynomial_evidence(t, y, degree):
    powers = torch.stack([t**i for i in range(degree + 1)], -1)
    return float(MultivariateNormal(torch.zeros(len(t)), 0.09 * torch.eye(len(t)) + powers @ powers.T).log_prob(y))


def normal_target(dim=3):
    root = torch.randn(dim, dim)
    return torch.randn(dim), root @ root.T + torch.eye(dim)  # mean, precision


def slope_at(guide, phi, mean, precision):
    """The exact derivative of the ELBO to this normal, in `gradient`'s coordinates, (size,)."""
    if isinstance(guide, MeanField):
        loc, scale = phi[0, : guide.dim], phi[0, guide.dim :].exp()
        return torch.cat([-scale * (precision @ (loc - mean)), 1 - precision.diagonal() * scale.square()])
    loc, factor = (part[0] for part in guide.split(phi))
    outer = torch.eye(guide.dim) - factor.T @ precision @ factor
    return torch.cat([-factor.T @ precision @ (loc - mean), outer.tril().flatten()])


def some_phi(guide):
    phi = guide.start(torch.randn(1, guide.dim), 0.3 * torch.randn(1, guide.dim))
    return guide.retract(phi, 0.3 * torch.randn(1, guide.size))


GUIDES = pytest.mark.parametrize("guide", [MeanField(3), FullRank(3)], ids=lambda g: type(g).__name__)


@GUIDES
def test_score_and_path_are_unbiased_and_the_path_is_the_quieter(guide):
    mean, precision = normal_target()
    one, restarts, particles = some_phi(guide), 20_000, 4
    noise = torch.randn(restarts, particles, 3)
    phi = one.expand(restarts, -1)
    x, log_q = guide.draw(phi, noise)
    grad = -(x - mean) @ precision
    log_p = -0.5 * ((x - mean) @ precision * (x - mean)).sum(-1)
    exact = slope_at(guide, one, mean, precision)
    paths, scores = guide.gradient(phi, noise, grad), score_gradient(log_p - log_q, guide.score(noise))
    for found in (paths, scores):
        assert ((found.mean(0) - exact).abs() <= 5 * found.std(0) / restarts**0.5 + 1e-9).all()
    learned = exact != 0
    ratio = (scores.var(0) / paths.var(0))[learned]
    assert (ratio > 1).all()
    assert ratio.log().mean().exp() > 3
    raw = ((log_p - log_q)[..., None] * guide.score(noise)).mean(1)  # without the other draws as baseline
    assert scores.var(0)[learned].sum() < raw.var(0)[learned].sum()


@GUIDES
def test_the_natural_step_is_fishers_inverse_times_the_slope(guide):
    mean, precision = normal_target()
    phi, rate = some_phi(guide), 1e-7
    slope = slope_at(guide, phi, mean, precision)[None]
    if isinstance(guide, MeanField):
        fisher = torch.cat([(-2 * phi[:, 3:]).exp(), torch.full((1, 3), 2.0)], -1)  # of mean and log sd
        plain = torch.cat([slope[:, :3] / phi[:, 3:].exp(), slope[:, 3:]], -1)
        moved = (guide.natural(phi, slope, torch.tensor(rate)) - phi) / rate
        torch.testing.assert_close(moved, plain / fisher, rtol=1e-5, atol=1e-6)
        return
    (loc, factor), (after, turned) = guide.split(phi), guide.split(guide.natural(phi, slope, torch.tensor(rate)))
    sigma = factor @ factor.mT
    inverse = [torch.linalg.inv(each @ each.mT) for each in (factor, turned)]
    torch.testing.assert_close((inverse[1] - inverse[0])[0] / rate, precision - inverse[0][0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close((after - loc)[0] / rate, sigma[0] @ precision @ (mean - loc[0]), rtol=1e-4, atol=1e-5)


@GUIDES
def test_natural_steps_keep_precisions_positive_and_end_at_the_best_normal(guide):
    mean, precision = normal_target()
    phi = guide.start(torch.full((1, 3), 30.0), torch.full((1, 3), 3.0))
    for _ in range(400):
        phi = guide.natural(phi, slope_at(guide, phi, mean, precision)[None], torch.tensor(0.5))
        assert phi.isfinite().all()
    torch.testing.assert_close(phi[0, :3], mean, rtol=0, atol=1e-8)
    if isinstance(guide, FullRank):
        factor = guide.split(phi)[1][0]
        torch.testing.assert_close(factor @ factor.T, precision.inverse())
    else:
        torch.testing.assert_close((-2 * phi[0, 3:]).exp(), precision.diagonal())


@pytest.mark.parametrize("gradient", ["natural", "score"])
def test_each_gradient_reaches_the_evidence(gradient):
    covariance = torch.tensor([[1.0, 0.6], [0.6, 1.0]])
    options = {"num_particles": 16, "num_restarts": 1, "num_steps": 600, "compile": False}
    fit = svi.fit(pair, covariance, guide="full-rank", gradient=gradient, **options)
    assert abs(fit.info["elbo"]) < (1e-3 if gradient == "natural" else 0.02)
    assert fit.info["gradient"] == gradient


def test_fixed_draws_climb_without_noise_and_linear_response_mends_the_variance():
    covariance = torch.tensor([[1.0, RHO], [RHO, 1.0]])
    fits = [svi.fit(pair, covariance, gradient="fixed", seed=seed, compile=False) for seed in (0, 1)]
    for fit in fits:
        loc, log_scale = fit.state["phi"].split(2)
        torch.testing.assert_close((2 * log_scale).exp(), torch.full((2,), 1 - RHO**2), rtol=1e-4, atol=0)
        torch.testing.assert_close(loc, torch.tensor([500.0, -3.0]), rtol=0, atol=1e-3)
        torch.testing.assert_close(fit.state["linear_response"], covariance, rtol=1e-6, atol=1e-6)
        assert fit.trace["elbo"][-1] == pytest.approx(-APART, abs=1e-4)
        assert (fit.trace["elbo"].diff() >= -1e-9).all()
        assert fit.info["converged"]
        assert fit.info["elbo"] == pytest.approx(-APART, abs=4 * fit.info["elbo_se"] + 1e-3)


def test_forward_keeps_the_variances_and_reverse_the_precisions_at_the_same_divergence():
    covariance = torch.tensor([[1.0, RHO], [RHO, 1.0]])
    fit = svi.fit(pair, covariance, divergence="forward", compile=False)
    loc, log_scale = fit.state["phi"].split(2)
    torch.testing.assert_close(log_scale.exp(), torch.ones(2), rtol=0.05, atol=0)
    torch.testing.assert_close(loc, torch.tensor([500.0, -3.0]), rtol=0, atol=0.05)
    p = MultivariateNormal(torch.zeros(2), covariance)
    wide, narrow = (MultivariateNormal(torch.zeros(2), v * torch.eye(2)) for v in (1.0, 1 - RHO**2))
    assert float(kl_divergence(p, wide)) == pytest.approx(APART, abs=1e-10)
    assert float(kl_divergence(narrow, p)) == pytest.approx(APART, abs=1e-10)
    full = svi.fit(pair, covariance, divergence="forward", guide="full-rank", compile=False)
    factor = full.state["phi"][2:].reshape(2, 2)
    torch.testing.assert_close(factor @ factor.T, covariance, rtol=0.05, atol=0.05)
    assert full.info["converged"]


def test_of_two_wells_forward_covers_both_and_reverse_takes_one():
    forward = svi.fit(two_wells, divergence="forward", compile=False)
    reverse = svi.fit(two_wells, gradient="fixed", compile=False)
    mean, sd = float(forward.state["phi"][0]), float(forward.state["phi"][1].exp())
    assert abs(mean) < 0.2
    assert sd == pytest.approx(math.sqrt(4 + 1 / 16), rel=0.05)
    assert abs(abs(float(reverse.state["phi"][0])) - 2) < 0.05
    assert float(reverse.state["phi"][1].exp()) == pytest.approx(0.25, rel=0.1)
    assert forward.info["log_evidence"] == pytest.approx(math.log(2 * math.sqrt(math.pi / 8)), abs=0.05)


def test_forward_divergence_of_samples_is_maximum_likelihood_and_matches_moments():
    """The normal with the least KL(p || q) from samples of p, by L-BFGS on autograd: E_q T = E_p T."""
    x = torch.randn(200, 2) @ torch.tensor([[1.0, 0.5], [0.0, 0.3]]) + 1

    def normal(flat):
        return flat[:2], flat[2:].reshape(2, 2).tril(-1) + flat[2::3].exp().diag()

    def fit_of(flat):
        with torch.enable_grad():
            flat = flat[0].detach().requires_grad_()
            loc, root = normal(flat)
            value = MultivariateNormal(loc, scale_tril=root).log_prob(x).sum()
            return value.detach()[None], torch.autograd.grad(value, flat)[0][None]

    loc, root = normal(maximise(fit_of, torch.zeros(1, 6), tol=1e-16).x[0])
    torch.testing.assert_close(loc, x.mean(0), rtol=0, atol=1e-6)
    torch.testing.assert_close(root @ root.T + loc[:, None] * loc, x.T @ x / 200, rtol=0, atol=1e-6)


def test_divergence_of_normals_in_closed_form():
    """The one in the logistic bound: with no features in the rows, the bound is log 2 a row less the divergence."""
    model = LogisticRegression(features=3, intercept=False, spread=1.7)
    data = Data.of(model, x=torch.zeros(4, 3), y=torch.tensor([0.0, 1.0, 1.0, 0.0]))
    prior = MultivariateNormal(torch.zeros(3), 1.7**2 * torch.eye(3))
    for root in (torch.randn(3, 3).tril(-1) + torch.rand(3).add(0.2).diag(), torch.rand(3) + 0.2):
        mean = torch.randn(3)
        q = MultivariateNormal(mean, scale_tril=root if root.ndim == 2 else root.diag())
        ours = -4 * math.log(2) - float(elbo(model, data, mean, root))
        assert ours == pytest.approx(float(kl_divergence(q, prior)), abs=1e-10)
        assert ours > 0
        assert abs(ours - float(kl_divergence(prior, q))) > 0.01  # not symmetric


def test_the_evidence_is_the_bound_and_the_divergence():
    """For any normal q over a conjugate regression; E_q of a quadratic by its value and curvature at the mean."""
    t = torch.linspace(-1, 1, 12)
    y = 0.5 + t + 0.3 * torch.randn(12)
    with fresh(polynomial, (t, y, 2)):
        density = Density.of(polynomial, (t, y, 2), {})
        mean, root = torch.randn(3), torch.randn(3, 3).tril(-1) + torch.rand(3).add(0.1).diag()
        q = MultivariateNormal(mean, scale_tril=root)
        hessian = density.hessian(mean).detach()
        bound = density.log_prob(mean).detach() + 0.5 * (hessian * q.covariance_matrix).sum() + q.entropy()
        centre = mean - torch.linalg.solve(hessian, density.value_and_grad(mean)[1])
        posterior = MultivariateNormal(centre, torch.linalg.inv(-hessian))
    assert float(bound + kl_divergence(q, posterior)) == pytest.approx(polynomial_evidence(t, y, 2), abs=1e-8)


@pytest.mark.slow
def test_the_bound_ranks_degrees_as_the_evidence_does():
    t = torch.linspace(-1, 1, 25)
    y = 0.3 - t + 1.2 * t**2 + 0.3 * torch.randn(25)
    options = {"guide": "full-rank", "gradient": "natural", "num_steps": 200, "num_restarts": 1, "compile": False}
    bounds = [svi.fit(polynomial, t, y, degree, **options).info["elbo"] for degree in range(1, 6)]
    evidence = [polynomial_evidence(t, y, degree) for degree in range(1, 6)]
    assert sorted(range(5), key=bounds.__getitem__) == sorted(range(5), key=evidence.__getitem__)
    assert max(range(5), key=evidence.__getitem__) + 1 == 2
    assert bounds == pytest.approx(evidence, abs=0.02)


def test_a_minibatch_gradient_is_unbiased():
    """Over all batches of an epoch, n / m times the rows' share is the whole."""
    model = LogisticRegression(features=2)
    data = Data.of(model, x=torch.randn(12, 2), y=(torch.rand(12) < 0.5).double())
    with fresh(model, (data,)) as own:
        survey = Survey.of(joint(own, (data,), {}), (data,), {})
        objective = Objective.of(own, (data,), {}, "mean-field", survey, 1)
        objective.loss(None)

        def slope(index):
            pyro.set_rng_seed(3)  # the same draw of the guide
            parameters = [p for _, p in pyro.get_param_store().named_parameters()]
            return torch.cat([g.flatten() for g in torch.autograd.grad(objective.loss(index), parameters)])

        parts = torch.stack([slope(rows) for rows in torch.arange(12).split(3)])
        torch.testing.assert_close(parts.mean(0), slope(None), rtol=1e-9, atol=1e-9)


def test_what_cannot_be_says_why():
    covariance = torch.eye(2)
    for options, said in (
        ({"gradient": "fixed", "guide": "full-rank"}, "fixed draws leave directions unseen"),
        ({"gradient": "natural", "guide": "flow"}, "flow has no natural gradient"),
        ({"divergence": "forward", "guide": "low-rank"}, "forward KL matches moments"),
    ):
        with pytest.raises(Unsupported, match=said):
            svi.fit(pair, covariance, **options)
    with pytest.raises(ValueError, match="no gradient is called 'steep'"):
        svi.fit(pair, covariance, gradient="steep")
    with pytest.raises(ValueError, match="num_particles must be at least 2"):
        svi.fit(pair, covariance, gradient="score", num_particles=1)


@pytest.mark.parametrize("way", [{"gradient": "fixed"}, {"divergence": "forward"}, {"guide": "blocks"}])
def test_a_way_without_steps_to_go_on_from_refuses_a_checkpoint(way, tmp_path):
    model = DirichletProcessMixture()
    data = Data.of(model, x=torch.randn(20, 2))
    with pytest.raises(Unsupported, match="runs to its end in one go; leave the checkpoint out"):
        svi.fit(model, data, checkpoint=tmp_path / "there", **way)
    assert not any(tmp_path.iterdir())


def test_a_window_with_infinite_bounds_has_a_best_restart_all_the_same():
    """None of the restarts is finite throughout: the soundest is judged, by its finite bounds alone."""
    inf = float("inf")
    window = torch.tensor([[-inf, -9.0, -3.0], [-inf, -8.0, -inf], [-inf, -inf, -inf]])  # (steps, restarts)
    assert best_restart(window) == [-9.0, -8.0]
    window[2, 2], window[1, 2] = -4.0, -5.0
    assert best_restart(window) == [-3.0, -5.0, -4.0]
