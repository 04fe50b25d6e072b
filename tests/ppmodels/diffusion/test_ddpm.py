import dataclasses

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO

import ppmodels
from ppmodels.base import Data, HasGuide, Model
from ppmodels.diffusion.bound import monte_carlo_bound, variational_bound
from ppmodels.diffusion.ddpm import DenoisingDiffusion
from ppmodels.diffusion.distance import sliced_wasserstein
from ppmodels.diffusion.samplers import ancestral


@pytest.fixture(autouse=True)
def clean_slate():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)


def untrained(**fields):
    """A model whose network says something: its last layer starts at zero."""
    model = DenoisingDiffusion(**fields)
    torch.nn.init.normal_(model.network.last.weight, std=0.1)
    return model


def test_it_is_in_the_catalogue():
    assert ppmodels.load("ddpm") is DenoisingDiffusion
    model = DenoisingDiffusion()
    assert isinstance(model, Model)
    assert isinstance(model, HasGuide)
    assert all(field.default is not dataclasses.MISSING for field in dataclasses.fields(model))


def test_sites_and_shapes():
    model, data = DenoisingDiffusion(dim=3, steps=5), Data(7)
    trace = poutine.trace(model.model).get_trace(data)
    sites = [name for name, site in trace.nodes.items() if site["type"] == "sample" and name != "rows"]
    assert sites == ["x_5", "x_4", "x_3", "x_2", "x_1", "x"]
    assert all(trace.nodes[name]["value"].shape == (7, 3) for name in sites)
    guide = poutine.trace(model.guide).get_trace(Data(7, observed={"x": torch.zeros(7, 3)}))
    assert [n for n in guide.nodes if n.startswith("x")] == sites[:-1]


@pytest.mark.parametrize("steps", [3, 8])
def test_guide_has_the_marginals_of_the_forward_walk(double_precision, steps):
    model = DenoisingDiffusion(dim=1, steps=steps)
    x = torch.full((100_000, 1), 1.5)
    trace = poutine.trace(model.guide).get_trace(Data(100_000, observed={"x": x}))
    before = x
    for t in range(1, steps + 1):
        value = trace.nodes[f"x_{t}"]["value"]
        alpha, sigma = float(model.noise.alpha[t]), float(model.noise.sigma[t])
        assert float(value.mean()) == pytest.approx(1.5 * alpha, abs=0.01)
        assert float(value.std()) == pytest.approx(sigma, abs=0.01)
        # And one step's noise is what the forward walk adds, independent of where it was.
        step = value - alpha / float(model.noise.alpha[t - 1]) * before
        assert float(step.var()) == pytest.approx(float(model.noise.beta[t]), abs=0.01)
        assert abs(float((step * (before - before.mean())).mean())) < 0.01
        before = value


def test_guide_is_the_forward_walk_s_density(double_precision):
    """Density of the walk written backwards = forwards, point by point."""
    model = DenoisingDiffusion(dim=2, steps=5)
    x = torch.randn(4, 2)
    trace = poutine.trace(model.guide).get_trace(Data(4, observed={"x": x}))
    forward, before = 0.0, x
    for t in range(1, 6):
        value, beta = trace.nodes[f"x_{t}"]["value"], model.noise.beta[t]
        forward += torch.distributions.Normal((1 - beta).sqrt() * before, beta.sqrt()).log_prob(value).sum()
        before = value
    assert float(trace.log_prob_sum()) == pytest.approx(float(forward), abs=1e-9)


@pytest.mark.parametrize(
    ("variance", "prediction_type"), [("beta", "v"), ("posterior", "v"), ("beta", "x0"), ("posterior", "epsilon")]
)
def test_elbo_is_the_bound_of_the_notes(double_precision, variance, prediction_type):
    model = untrained(dim=2, steps=6, variance=variance, prediction_type=prediction_type)
    x = torch.tensor([[0.4, -0.8]]).expand(4_000, 2)
    data = Data(4_000, observed={"x": x})
    conditioned = poutine.condition(model.model, data={"x": x})
    with torch.no_grad():
        told = [-elbo.loss(conditioned, model.guide, data) / 4_000 for elbo in (Trace_ELBO(), TraceMeanField_ELBO())]
        walk = monte_carlo_bound(model.denoiser, x, variance=variance)
        terms = variational_bound(model.denoiser, x, variance=variance).total
    error = float((walk.var() + terms.var()).sqrt()) / 4_000**0.5
    assert told[0] == pytest.approx(float(walk.mean()), abs=5 * error)
    assert told[1] == pytest.approx(float(terms.mean()), abs=5 * error)
    assert float(walk.mean()) == pytest.approx(float(terms.mean()), abs=5 * error)


def test_minibatches_scale(double_precision):
    model = untrained(dim=2, steps=3)
    data = Data(8, observed={"x": torch.randn(8, 2)})
    values = {name: torch.randn(8, 2) for name in ("x_1", "x_2", "x_3")} | dict(data.observed)

    def score(part, rows):
        fixed = {name: value[rows] for name, value in values.items()}
        return poutine.trace(poutine.condition(model.model, data=fixed)).get_trace(part).log_prob_sum()

    whole = score(data, slice(None))
    halves = [score(data.batch(torch.arange(i, i + 4)), slice(i, i + 4)) for i in (0, 4)]
    torch.testing.assert_close(whole, torch.stack(halves).mean())


def test_learning_raises_the_bound_and_makes_samples(ring):
    x = (ring.sample(2000)[0] / 1.5).float()
    model = DenoisingDiffusion(dim=2, steps=6)
    data = Data(2000, observed={"x": x})

    def observed(part):
        return poutine.condition(model.model, data=dict(part.observed))(part)

    svi = SVI(observed, model.guide, pyro.optim.Adam({"lr": 4e-3}), TraceMeanField_ELBO())
    losses = [svi.step(data.batch(torch.randint(2000, (256,)))) / 2000 for _ in range(250)]
    assert sum(losses[-30:]) / 30 < sum(losses[:5]) / 5 - 0.3
    with torch.no_grad():
        drawn = ancestral(model.denoiser, torch.randn(2000, 2))
        prior = model.noise.sigma[1]
        story = poutine.trace(model.model).get_trace(Data(2000)).nodes["x"]["value"]
    assert float(sliced_wasserstein(drawn, x)) < 0.2
    assert float(sliced_wasserstein(story, x)) < 0.2 + float(prior)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"steps": 0}, "must be positive"),
        ({"schedule": "square"}, "no schedule 'square'"),
        ({"variance": "learned"}, "variance 'learned'"),
        ({"prediction_type": "noise"}, "no prediction_type 'noise'"),
        ({"schedule": "linear"}, "needs 25 steps"),
    ],
)
def test_bad_fields_get_one_clear_line(fields, says):
    with pytest.raises(ValueError, match=says):
        DenoisingDiffusion(**fields)
