"""SVI against exact posteriors and evidences, and against Pyro's own."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, autoguide
from torch import nn

from inference import svi
from inference.base import Unsupported, fresh, joint
from inference.density import Density
from inference.svi.ascent import Ascent
from inference.svi.objective import Objective, Survey
from inference.tracing.learned import learned
from ppmodels.base import Data

pytestmark = pytest.mark.usefixtures("double_precision")


def correlated(covariance):
    pyro.sample("x", dist.MultivariateNormal(torch.tensor([500.0, -3.0]), covariance))


def linear(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(x.shape[1]), 2.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(x @ w, 0.7), obs=y)


def regression_data(rows=40):
    x = torch.randn(rows, 3) @ torch.tensor([[1.0, 0.8, 0.0], [0.0, 0.6, 0.3], [0.0, 0.0, 1.0]])
    return x, x @ torch.tensor([1.0, -2.0, 0.5]) + 0.7 * torch.randn(rows)


def exact(x, y):
    """Posterior mean, precision and log evidence of `linear`."""
    precision = x.T @ x / 0.7**2 + torch.eye(3) / 4
    mean = torch.linalg.solve(precision, x.T @ y / 0.7**2)
    marginal = dist.MultivariateNormal(torch.zeros(len(y)), 0.49 * torch.eye(len(y)) + 4 * x @ x.T)
    return mean, precision, float(marginal.log_prob(y))


def mixture(x):
    weight = pyro.sample("weight", dist.Beta(2.0, 2.0))
    loc = pyro.sample("loc", dist.Normal(torch.tensor([-2.0, 2.0]), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Bernoulli(weight), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(loc[z.long()], 1.0), obs=x)
    pyro.deterministic("gap", loc[1] - loc[0])


def funnel():
    v = pyro.sample("v", dist.Normal(0.0, 3.0))
    with pyro.plate("leaves", 9):
        pyro.sample("x", dist.Normal(0.0, (v / 2).exp()))


def test_mean_field_on_a_correlated_normal():
    covariance = torch.tensor([[1.0, 0.9], [0.9, 1.0]])
    fit = svi.fit(correlated, covariance, num_particles=64)
    loc, log_scale = fit.state["phi"].split(2)
    torch.testing.assert_close((2 * log_scale).exp(), torch.full((2,), 0.19), rtol=0.02, atol=0)
    torch.testing.assert_close(loc, torch.tensor([500.0, -3.0]), rtol=0, atol=0.02)
    assert fit.info["guide"] == "mean-field"
    assert fit.info["converged"]
    assert abs(fit.info["elbo"] + 0.8304) < 4 * fit.info["elbo_se"] + 0.001
    assert fit.trace["elbo"].shape == (fit.info["steps"],)


@pytest.mark.parametrize("guide", ["full-rank", "low-rank"])
def test_rich_guides_are_exact_on_linear_regression(guide):
    x, y = regression_data()
    mean, precision, evidence = exact(x, y)
    fit = svi.fit(linear, x, y, guide=guide, num_samples=4000)
    q = svi.flat_guide(guide, 3)
    phi = fit.state["phi"][None]
    torch.testing.assert_close(phi[0, :3], mean, rtol=0.01, atol=0.001)
    draws, _ = q.draw(phi, torch.randn(1, 100_000, q.noise))
    if guide == "full-rank":
        _, factor = q.split(phi)
        torch.testing.assert_close(factor[0] @ factor[0].T, precision.inverse(), rtol=0.01, atol=1e-5)
        assert fit.info["elbo"] == pytest.approx(evidence, abs=1e-4)
    scale = precision.inverse().diagonal().sqrt()
    gap = (draws[0].T.cov() - precision.inverse()) / scale[:, None] / scale
    assert gap.abs().max() < 0.04
    assert fit.info["elbo"] <= evidence + 4 * fit.info["elbo_se"] + 1e-6
    assert evidence - fit.info["elbo"] < 0.02
    assert fit.info["khat"] < 0.5
    assert fit.draws["w"].shape == (1, 4000, 3)


def test_mean_field_has_the_posterior_precision():
    x, y = regression_data()
    mean, precision, evidence = exact(x, y)
    fit = svi.fit(linear, x, y, num_particles=64)
    loc, log_scale = fit.state["phi"].split(3)
    torch.testing.assert_close((2 * log_scale).exp(), 1 / precision.diagonal(), rtol=0.02, atol=0)
    torch.testing.assert_close(loc, mean, rtol=0.01, atol=0.01)
    gap = 0.5 * float(precision.diagonal().log().sum() - torch.logdet(precision))
    assert abs(evidence - gap - fit.info["elbo"]) < 4 * fit.info["elbo_se"] + 1e-3


def test_flow_is_better_than_any_normal_on_a_banana():
    def banana():
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        pyro.sample("b", dist.Normal(a**2, 0.3))

    flow, full = (svi.fit(banana, guide=g, num_steps=900, num_restarts=2) for g in ("flow", "full-rank"))
    assert flow.info["elbo"] > full.info["elbo"] + 0.2  # the evidence is 0
    assert -0.25 < flow.info["elbo"] < 4 * flow.info["elbo_se"]


def test_the_elbo_is_pyros():
    """At equal parameters, over many draws: means within their Monte-Carlo error."""
    x, y = regression_data(20)
    loc, scale = torch.tensor([0.9, -1.8, 0.4]), torch.tensor([0.1, 0.2, 0.3])
    with fresh(linear, (x, y), {}):
        guide = autoguide.AutoNormal(linear)
        guide(x, y)
        guide.locs.w.data.copy_(loc)
        guide.scales.w = scale
        theirs = -Trace_ELBO(num_particles=1000, vectorize_particles=False).loss(linear, guide, x, y)
        density = Density.of(linear, (x, y), {})
        q = svi.flat_guide("mean-field", 3)
        z, log_q = q.draw(torch.cat([loc, scale.log()])[None], torch.randn(1, 4000, 3))
        log_p, _ = density.batched(4000)(z[0])
    ours = log_p - log_q[0]
    assert abs(float(ours.mean()) - theirs) < 4 * float(ours.std()) * math.sqrt(1 / 1000 + 1 / 4000)


@pytest.mark.slow
@pytest.mark.parametrize("guide", ["mean-field", "full-rank"])
def test_both_paths_agree_on_a_mixture(guide):
    """Pyro's automatic guide with its own estimator reaches the same bound as ours."""
    x = torch.cat([torch.randn(15) - 2, torch.randn(25) + 2])
    kind = {"mean-field": autoguide.AutoNormal, "full-rank": autoguide.AutoMultivariateNormal}[guide]
    ours = svi.fit(mixture, x, guide=guide)
    theirs = svi.fit(mixture, x, guide=kind, num_steps=1500, lr=0.03, num_samples=500)
    assert theirs.info["guide"] == kind.__name__
    assert ours.draws.keys() == theirs.draws.keys() == {"weight", "loc", "gap"}
    for name, value in ours.draws.items():
        a, b = value[0], theirs.draws[name][0]
        assert a.shape[1:] == b.shape[1:]
        assert ((a.mean(0) - b.mean(0)) / a.std(0)).abs().max() < 0.35
    assert abs(ours.info["elbo"] - theirs.info["elbo"]) < 0.15
    torch.testing.assert_close(ours.draws["gap"], ours.draws["loc"][..., 1] - ours.draws["loc"][..., 0])


def test_khat_is_small_on_a_normal_and_large_on_a_funnel():
    x, y = regression_data()
    assert svi.fit(linear, x, y, guide="full-rank", num_steps=1500).info["khat"] < 0.5
    assert svi.fit(funnel, num_steps=1500).info["khat"] > 0.7


def test_the_best_restart_wins():
    def two_modes():
        pyro.sample("x", dist.Normal(0.0, 10.0))
        x = pyro.sample("y", dist.Normal(0.0, 1.0))
        pyro.factor("wells", torch.logaddexp(-50 * (x - 1.5) ** 2, -50 * (x + 1.5) ** 2 + 3))

    fit = svi.fit(two_modes, num_restarts=8, num_steps=600)
    assert len(fit.info["restarts"]) == 8
    assert max(fit.info["restarts"]) > min(fit.info["restarts"]) + 1
    assert float(fit.draws["y"].mean()) == pytest.approx(-1.5, abs=0.1)
    assert fit.info["elbo"] == pytest.approx(max(fit.info["restarts"]), abs=0.2)


def test_too_few_steps_are_reported():
    x, y = regression_data()
    fit = svi.fit(linear, x, y, num_steps=30)
    assert not fit.info["converged"]
    assert "raise num_steps" in fit.info["message"]
    assert len(fit.trace["elbo"]) == 30


def test_same_seed_same_draws():
    x, y = regression_data()
    first, second, third = (svi.fit(linear, x, y, num_steps=200, seed=s, num_samples=50) for s in (1, 1, 2))
    assert torch.equal(first.draws["w"], second.draws["w"])
    assert not torch.equal(first.draws["w"], third.draws["w"])


def test_a_fast_run_resumes_to_the_same_bits(tmp_path, monkeypatch):
    x, y = regression_data()
    options = {"guide": "full-rank", "num_steps": 600, "num_samples": 50}
    whole = svi.fit(linear, x, y, **options)
    update, windows = svi.Plateau.update, []

    def dies(self, values):
        windows.append(values)
        if len(windows) == 4:
            raise KeyboardInterrupt
        update(self, values)

    monkeypatch.setattr(svi.Plateau, "update", dies)
    with pytest.raises(KeyboardInterrupt):
        svi.fit(linear, x, y, checkpoint=tmp_path / "run", **options)
    monkeypatch.undo()
    resumed = svi.fit(linear, x, y, checkpoint=tmp_path / "run", **options)
    assert torch.equal(whole.state["phi"], resumed.state["phi"])
    assert torch.equal(whole.draws["w"], resumed.draws["w"])
    assert torch.equal(whole.trace["elbo"], resumed.trace["elbo"])
    with pytest.raises(ValueError, match="another run"):
        svi.fit(linear, x, y, checkpoint=tmp_path / "run", seed=4, **options)


def test_a_density_that_is_never_finite_is_one_clear_line(monkeypatch):
    def cliff():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.factor("nan", torch.where(x < 100.0, 0.0, math.nan))

    def beyond(self, batched):
        phi = torch.tensor([[1e3, 0.0]]).expand(4, 2)
        return {"phi": phi, "first": torch.zeros(4, 2), "second": torch.zeros(4, 2)}

    monkeypatch.setattr(Ascent, "_start", beyond)
    with pytest.raises(FloatingPointError, match=r"^step 1: the ELBO is nan at every draw; .*$"):
        svi.fit(cliff, num_steps=200)

    def kink():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.factor("kink", (x * 0).sqrt())

    monkeypatch.undo()
    with pytest.raises(ValueError, match="no start with a finite log density"):
        svi.fit(kink, num_steps=200)


@dataclass(frozen=True)
class LatentLines:
    """A linear variational autoencoder, small."""

    latents: int = 2
    observed: ClassVar[tuple[str, ...]] = ("x",)

    @cached_property
    def decoder(self):
        return nn.Linear(self.latents, 4)

    @cached_property
    def encoder(self):
        return nn.Linear(4, 2 * self.latents)

    def inputs(self, rows):
        return {}

    def model(self, data):
        pyro.module("decoder", self.decoder)
        scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
        with data.plate():
            z = pyro.sample("z", dist.Normal(torch.zeros(self.latents), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), scale).to_event(1))

    def guide(self, data):
        pyro.module("encoder", self.encoder)
        loc, log_scale = self.encoder(data.observed["x"]).chunk(2, -1)
        with data.plate():
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def autoencoder_data(rows=200):
    x = torch.randn(rows, 2) @ torch.tensor([[2.0, 0.0, 1.0, 0.5], [0.0, 1.0, -1.0, 0.5]]) + 0.2 * torch.randn(rows, 4)
    return Data.of(LatentLines(), x=x)


def test_a_learned_model_with_its_own_guide_and_minibatches():
    data, model = autoencoder_data(), LatentLines()
    fit = svi.fit(model, data, batch_size=50, num_steps=1200, lr=0.03, num_samples=40)
    assert fit.info["guide"] == "hand"
    names = ["decoder$$$bias", "decoder$$$weight", "encoder$$$bias", "encoder$$$weight", "scale"]
    assert fit.info["learned"] == names
    assert fit.draws["z"].shape == (1, 40, 200, 2)
    assert "decoder" not in vars(model)  # the caller's model is untouched
    x = data.observed["x"]
    values, _ = torch.linalg.eigh(x.T.cov(correction=0))
    noise = float(values[:2].mean())  # probabilistic PCA's maximum likelihood
    assert float(fit.state["parameters"]["scale"]) == pytest.approx(math.sqrt(noise), rel=0.15)
    truth = dist.MultivariateNormal(x.mean(0), x.T.cov(correction=0)).log_prob(x).sum()
    assert float(truth) - 40 < fit.info["elbo"] < float(truth)
    assert torch.equal(fit.model.decoder.weight, fit.state["parameters"]["decoder$$$weight"])
    with fresh(fit.model, fit.args, fit.kwargs) as own, learned(fit):
        trace = pyro.poutine.trace(own.model).get_trace(data)
    assert torch.equal(trace.nodes["scale"]["value"], fit.state["parameters"]["scale"])
    assert len(pyro.get_param_store()) == 0


def test_a_minibatch_bound_is_unbiased():
    """Averaged over an epoch's equal batches, the scaled loss is that of all rows, to the digit."""

    class Point(LatentLines):
        def guide(self, data):
            loc = self.encoder(data.observed["x"])[:, :2]
            with data.plate():
                pyro.sample("z", dist.Delta(loc, event_dim=1))

    data = autoencoder_data(20)
    with fresh(Point(), (data,), {}) as own:
        survey = Survey.of(joint(own, (data,), {}), (data,), {})
        objective = Objective.of(own, (data,), {}, "hand", survey, 1)
        batches = [objective.loss(rows) for rows in torch.randperm(20).reshape(4, 5)]
        whole = objective.loss(None)
    torch.testing.assert_close(torch.stack(batches).mean(), whole, rtol=1e-10, atol=0)


def test_a_closures_network_is_trained_and_then_left_alone():
    net = nn.Linear(1, 1)
    before = net.weight.detach().clone()

    def line(x, y):
        pyro.module("net", net)
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(net(x)[:, 0], 0.1), obs=y)

    x = torch.linspace(-1, 1, 20)[:, None]
    fit = svi.fit(line, x, 3 * x[:, 0] + 1, num_steps=1500, lr=0.05)
    assert fit.info["guide"] == "none"
    assert fit.draws == {}
    assert torch.equal(net.weight, before)
    with learned(fit), fresh(line, (x, x)):
        line(x, x[:, 0])
        assert float(net.weight.detach()) == pytest.approx(3.0, abs=0.02)
    assert torch.equal(net.weight, before)


def test_maximum_likelihood_without_latents():
    def normal(x):
        loc = pyro.param("loc", torch.tensor(0.0))
        scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(loc, scale), obs=x)

    x = 2 + 3 * torch.randn(100)
    fit = svi.fit(normal, x, lr=0.2)
    assert fit.info["converged"]
    assert float(fit.draws["loc"]) == pytest.approx(float(x.mean()), abs=0.01)
    assert float(fit.draws["scale"]) == pytest.approx(float(x.std(correction=0)), rel=0.01)
    assert fit.draws["loc"].shape == (1, 1)


def test_everything_global_is_left_as_it_was():
    pyro.clear_param_store()
    pyro.param("mine", torch.tensor(3.0))
    state = torch.get_rng_state()
    x, y = regression_data()
    torch.set_rng_state(state)

    def explodes(x):
        pyro.param("theirs", torch.tensor(1.0))
        raise RuntimeError("boom")

    svi.fit(linear, x, y, num_steps=20, num_samples=5)
    svi.fit(linear, x, y, num_steps=20, num_samples=5, guide=autoguide.AutoNormal)
    with pytest.raises(RuntimeError, match="boom"):
        svi.fit(explodes, x)
    assert torch.equal(torch.get_rng_state(), state)
    assert list(pyro.get_param_store()) == ["mine"]
    assert torch.get_default_dtype() == torch.float64
    pyro.clear_param_store()


def test_pairs_that_cannot_work_say_why():
    x, y = regression_data(5)

    def counts():
        pyro.sample("n", dist.Poisson(3.0))

    @dataclass(frozen=True)
    class NoGuide(LatentLines):
        guide = None

    with pytest.raises(Unsupported, match="without end"):
        svi.fit(counts)
    with pytest.raises(Unsupported, match="no guide of its own"):
        svi.fit(linear, x, y, guide="hand")
    with pytest.raises(ValueError, match=r"no guide is called 'best'; there are: hand, blocks, mean-field"):
        svi.fit(linear, x, y, guide="best")
    with pytest.raises(Unsupported, match="batch_size"):
        svi.fit(linear, x, y, batch_size=2)
    with pytest.raises(Unsupported, match="a value a row"):
        svi.fit(LatentLines(), autoencoder_data(10), guide="mean-field", batch_size=5)
    with pytest.raises(Unsupported, match="nothing to infer"):
        svi.fit(lambda: pyro.sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(1.0)))
    with pytest.raises(Unsupported, match="at least two"):
        svi.fit(lambda: pyro.sample("x", dist.Normal(0.0, 1.0)), guide="flow")
    with pytest.raises(Unsupported, match="the guide has no site 'w'"):
        svi.fit(linear, x, y, guide=lambda x, y: None)
    with pytest.raises(ValueError, match="num_steps must be at least 1"):
        svi.fit(linear, x, y, num_steps=0)


def test_a_guide_by_hand_may_draw_discrete_sites():
    def counts(y):
        n = pyro.sample("n", dist.Poisson(3.0))
        pyro.sample("y", dist.Normal(n, 0.5), obs=y)

    def guide(y):
        rate = pyro.param("rate", torch.tensor(2.0), constraint=dist.constraints.positive)
        pyro.sample("n", dist.Poisson(rate))

    fit = svi.fit(counts, torch.tensor(4.0), guide=guide, lr=0.05, num_steps=400, num_particles=4, num_samples=200)
    assert fit.draws["n"].shape == (1, 200)
    assert 2.5 < float(fit.state["parameters"]["rate"]) < 4.5
