"""Pointwise log likelihoods against formulas written by hand."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import config_enumerate, infer_discrete

import inference
from inference.base import Fit, Unsupported, fresh, joint
from inference.pointwise import assignments, pointwise
from ppmodels import load
from ppmodels.datasets import old_faithful

pytestmark = pytest.mark.usefixtures("double_precision")


def mixture(x):
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("components", 3):
        loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 5.0).to_event(1))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(loc[z], scale[z][..., None]).to_event(1), obs=x)


def mixture_draws(chains=2, draws=5, seed=0):
    torch.manual_seed(seed)
    return {
        "weights": dist.Dirichlet(torch.ones(3)).sample((chains, draws)),
        "loc": torch.randn(chains, draws, 3, 2) * 3,
        "scale": torch.rand(chains, draws, 3) + 0.5,
    }


def mixture_terms(draws, x):
    """log w_k + log N(x_n | m_k, s_k), (chain, draw, row, component)."""
    w, m, s = (draws[k] for k in ("weights", "loc", "scale"))
    each = dist.Normal(m[:, :, None], s[:, :, None, :, None]).log_prob(x[:, None]).sum(-1)
    return each + w.log()[:, :, None]


@pytest.mark.parametrize("chunk", [None, 1, 3])
def test_enumerated_mixture_equals_its_density(chunk):
    x, draws = torch.randn(7, 2), mixture_draws()
    result = pointwise(Fit(mixture, (x,), {}, "hand", draws), chunk=chunk)
    expected = mixture_terms(draws, x).logsumexp(-1)
    assert result.log_likelihood.keys() == {"x"}
    assert result.dims["x"] == ("rows",)
    torch.testing.assert_close(result.log_likelihood["x"], expected, rtol=0, atol=1e-10)
    prior = dist.Normal(0.0, 5.0).log_prob(draws["loc"]).sum(-1)
    torch.testing.assert_close(result.log_prior["loc"], prior)
    assert result.dims["loc"] == ("components",)
    assert result.log_prior.keys() == {"weights", "loc", "scale"}


def test_assignments_are_bayes_rule():
    x, draws = torch.randn(7, 2), mixture_draws()
    fit = Fit(mixture, (x,), {}, "hand", draws)
    expected = mixture_terms(draws, x).softmax(-1)
    torch.testing.assert_close(assignments(fit, average=False)["z"], expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(assignments(fit)["z"], expected.mean((0, 1)), rtol=0, atol=1e-12)


def test_far_apart_factors_do_not_underflow():
    x, draws = torch.randn(4, 2), mixture_draws(1, 3)
    draws["loc"] = draws["loc"] * 1e3
    result = pointwise(Fit(mixture, (x,), {}, "hand", draws))
    torch.testing.assert_close(result.log_likelihood["x"], mixture_terms(draws, x).logsumexp(-1))


def two_views(a, b):
    """Two observed sites hang on one discrete site; one has a further plate."""
    with pyro.plate("rows", len(a), dim=-2):
        z = pyro.sample("z", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        pyro.sample("a", dist.Normal(z, 1.0), obs=a[:, None])
        with pyro.plate("column", 3, dim=-1):
            loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
            pyro.sample("b", dist.Normal(loc + z, 2.0), obs=b)


def test_several_observed_sites_sum_to_the_joint():
    a, b = torch.randn(5), torch.randn(5, 3)
    draws = {"loc": torch.randn(1, 4, 5, 3)}
    fit = Fit(two_views, (a, b), {}, "hand", draws)
    result = pointwise(fit)
    z, p = torch.tensor([0.0, 1.0]), torch.tensor([0.7, 0.3])
    first = p.log() + dist.Normal(z, 1.0).log_prob(a[:, None])
    second = dist.Normal(draws["loc"][..., None] + z, 2.0).log_prob(b[..., None]).sum(-2)
    torch.testing.assert_close(result.log_likelihood["a"], first.logsumexp(-1).expand(1, 4, 5))
    total = result.log_likelihood["a"] + result.log_likelihood["b"]
    torch.testing.assert_close(total, (first + second).logsumexp(-1))
    assert result.dims["b"][0] == "rows"
    q = assignments(fit, average=False)["z"]
    torch.testing.assert_close(q, (first + second).softmax(-1))


@config_enumerate
def chain(y):
    """A hidden Markov chain, which couples its observed sites."""
    stay = pyro.sample("stay", dist.Beta(2.0, 2.0))
    z = torch.tensor(0)
    for t in pyro.markov(range(len(y))):
        z = pyro.sample(f"z_{t}", dist.Bernoulli(torch.where(z.bool(), stay, 1 - stay))).long()
        pyro.sample(f"y_{t}", dist.Normal(torch.tensor([-1.0, 1.0])[z], 1.0), obs=y[t])


def test_hidden_markov_chain_equals_the_forward_algorithm():
    y = torch.randn(12)
    draws = {"stay": torch.rand(2, 3)}
    result = pointwise(Fit(chain, (y,), {}, "hand", draws))
    got = torch.stack([result.log_likelihood[f"y_{t}"] for t in range(12)], -1)
    stay = draws["stay"]
    move = torch.stack([torch.stack([stay, 1 - stay], -1), torch.stack([1 - stay, stay], -1)], -2).log()
    alpha = torch.tensor([0.0, -math.inf]).expand(2, 3, 2)
    before, expected = torch.zeros(2, 3), []
    for t in range(12):
        emit = dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).log_prob(y[t])
        alpha = (alpha[..., None] + move).logsumexp(-2) + emit
        expected.append(alpha.logsumexp(-1) - before)
        before = alpha.logsumexp(-1)
    torch.testing.assert_close(got, torch.stack(expected, -1), rtol=0, atol=1e-10)


def coupled(y):
    """One discrete site stands above all rows, so that they do not fall apart."""
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    z = pyro.sample("z", dist.Bernoulli(0.4), infer={"enumerate": "parallel"})
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(loc + 2 * z, 1.0), obs=y)


def test_rows_coupled_by_a_discrete_site_have_one_value():
    y, draws = torch.randn(6), {"loc": torch.randn(2, 3)}
    fit = Fit(coupled, (y,), {}, "hand", draws)
    result = pointwise(fit)
    terms = dist.Normal(draws["loc"][..., None, None] + torch.tensor([0.0, 2.0])[:, None], 1.0).log_prob(y).sum(-1)
    terms = terms + torch.tensor([0.6, 0.4]).log()
    torch.testing.assert_close(result.log_likelihood["y"], terms.logsumexp(-1))
    torch.testing.assert_close(assignments(fit)["z"], terms.softmax(-1).mean((0, 1)))


def sub_sampled(y):
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y), subsample_size=4) as rows:
        shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(loc + shift, 1.0), obs=y[rows])


def test_every_row_of_a_sub_sampled_plate_is_covered_once_and_unscaled():
    y, draws = torch.randn(10), {"loc": torch.randn(1, 5), "shift": torch.randn(1, 5, 10)}
    result = pointwise(Fit(sub_sampled, (y,), {}, "hand", draws))
    expected = dist.Normal(draws["loc"][..., None] + draws["shift"], 1.0).log_prob(y)
    torch.testing.assert_close(result.log_likelihood["y"], expected)
    with pytest.raises(Unsupported, match="no draws of site 'shift'"):
        pointwise(Fit(sub_sampled, (y,), {}, "hand", {"loc": draws["loc"]}))


def by_hand(y):
    """Reads a number out of a tensor, which cannot be batched."""
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(2.0 if loc.item() > 0 else loc, 1.0), obs=y)


def test_programs_that_cannot_be_batched_are_looped():
    y, draws = torch.randn(6), {"loc": torch.randn(2, 3)}
    result = pointwise(Fit(by_hand, (y,), {}, "hand", draws))
    loc = torch.where(draws["loc"] > 0, 2.0, draws["loc"])
    torch.testing.assert_close(result.log_likelihood["y"], dist.Normal(loc[..., None], 1.0).log_prob(y))


def masked(y):
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0).mask(False))
    pyro.factor("prior", -loc.abs())
    with pyro.plate("rows", len(y)), pyro.poutine.mask(mask=torch.arange(len(y)) != 2):
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y)


def test_masked_rows_count_zero_and_factors_are_no_observations():
    y, draws = torch.randn(5), {"loc": torch.randn(1, 3)}
    result = pointwise(Fit(masked, (y,), {}, "hand", draws))
    assert result.log_likelihood.keys() == {"y"}
    assert (result.log_likelihood["y"][..., 2] == 0).all()
    assert (result.log_likelihood["y"][..., 3] != 0).all()


@pytest.mark.parametrize("method", ["em", "mode", "laplace"])
def test_assignments_are_those_of_pyro_s_infer_discrete_after_any_method(method):
    """Every point of the posterior, whoever found it, tells to which component a row belongs."""
    data = old_faithful()
    model = load("gmm").for_data(data.observed["x"], components=2, ordered=True)
    options = {"num_samples": 3} if method == "laplace" else {}
    fit = inference.fit(method, model, data, seed=1, num_restarts=2, **options)
    every = assignments(fit, average=False)["z"]  # (1, S, N, 2)
    torch.testing.assert_close(assignments(fit)["z"], every.mean((0, 1)))
    theta = {site: value[0, 0] for site, value in fit.draws.items() if site != "covariance"}
    program = pyro.condition(joint(model, (data,), {}), data=theta)
    with fresh(model, (data,), seed=2):
        drawn = poutine.trace(infer_discrete(config_enumerate(program), first_available_dim=-2))
        z = torch.stack([drawn.get_trace(data).nodes["z"]["value"] for _ in range(100)])  # (100, N)
    share, expected = (z == 1).double().mean(0), every[0, 0, :, 1]
    error = (expected * (1 - expected) / 100).sqrt() + 5e-3
    assert ((share - expected).abs() < 4.5 * error).all()
