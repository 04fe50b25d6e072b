"""The Gaussian process's marginal likelihood, its closed-form gradient under every transform, and its posterior."""

import pyro
import pytest
import torch
from torch.distributions import MultivariateNormal
from torch.fx.experimental.proxy_tensor import make_fx

from inference.base import fresh, joint
from inference.density import Density
from inference.predict import simulate
from ppmodels.base import Data
from ppmodels.kernels._marginal import gram_and_slope, log_marginal
from ppmodels.kernels.functions import RBF, Matern
from ppmodels.kernels.gp import GaussianProcess
from tests.draws import normal

FAMILIES = ["rbf", "matern12", "matern32", "matern52"]


def problem(rows=25, columns=3):
    x = normal(rows, columns)
    x[1] = x[0]  # a duplicated point
    theta = [torch.tensor(v, dtype=torch.float64) for v in ([0.7, 1.1, 2.0][:columns], 1.4, 0.3)]
    return normal(rows, seed=1), x, *theta


def plain(y, x, lengthscale, amplitude, noise, family):
    """The definition, for autograd to differentiate by itself."""
    z = x / lengthscale
    squared = (z[:, None] - z).square().sum(-1)
    off = squared > 0
    r = torch.where(off, torch.where(off, squared, 1.0).sqrt(), 0.0)
    k = {
        "rbf": lambda: (-squared / 2).exp(),
        "matern12": lambda: (-r).exp(),
        "matern32": lambda: (1 + 3**0.5 * r) * (-(3**0.5) * r).exp(),
        "matern52": lambda: (1 + 5**0.5 * r + 5 / 3 * squared) * (-(5**0.5) * r).exp(),
    }[family]()
    covariance = amplitude**2 * k + noise**2 * torch.eye(len(y), dtype=y.dtype)
    return MultivariateNormal(torch.zeros_like(y), covariance, validate_args=False).log_prob(y)


@pytest.mark.parametrize("family", FAMILIES)
def test_value_gradient_and_hessian_are_those_of_the_definition(family):
    y, x, *theta = problem()

    def at(function, y, *theta):
        return function(y, x, *theta, family)

    leaves = [t.clone().requires_grad_() for t in (y, *theta)]
    ours, truth = at(log_marginal, *leaves), at(plain, *leaves)
    assert torch.isclose(ours, truth, atol=1e-10)
    for a, b in zip(torch.autograd.grad(ours, leaves), torch.autograd.grad(truth, leaves), strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-9)
    assert torch.autograd.gradcheck(lambda *t: at(log_marginal, y, *t), leaves[1:])

    def flat(function):
        return lambda v: at(function, y, v[:3], v[3], v[4])

    point = torch.cat([t.reshape(-1) for t in theta])
    hessian = [torch.autograd.functional.hessian(flat(f), point) for f in (log_marginal, plain)]
    assert torch.allclose(*hessian, rtol=1e-7, atol=1e-7)


def test_it_can_be_mapped_and_traced():
    y, x, *theta = problem()

    def gradient(v):
        return torch.func.grad(lambda u: log_marginal(y, x, u[:3], u[3], u[4]))(v)

    points = torch.cat([t.reshape(-1) for t in theta]) * (1 + 0.1 * torch.arange(4.0, dtype=torch.float64)[:, None])
    one_by_one = torch.stack([gradient(p) for p in points])
    assert torch.allclose(torch.func.vmap(gradient)(points), one_by_one, rtol=1e-10)

    def value_and_grad(v):
        v = v.detach().requires_grad_()
        value = log_marginal(y, x, v[:3], v[3], v[4])
        return value.detach(), torch.autograd.grad(value, v)[0]

    traced = make_fx(value_and_grad)(points[0])
    assert torch.allclose(traced(points[2])[1], one_by_one[2], rtol=1e-10)


def test_a_singular_covariance_is_nan_and_spoils_no_neighbour():
    y, x, lengthscale, amplitude, noise = problem()
    mapped = torch.func.vmap(lambda s: log_marginal(y, x, lengthscale, amplitude, s))
    values = mapped(torch.stack([noise, torch.zeros_like(noise)]))
    assert values[0].isfinite()
    assert not values[1].isfinite()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_kernels_of_the_model_are_the_kernels(family):
    x = normal(20, 2)
    kernel = RBF() if family == "rbf" else Matern({"matern12": 0.5, "matern32": 1.5, "matern52": 2.5}[family])
    gram, slope = gram_and_slope(x, family)
    assert torch.allclose(gram, kernel(x), atol=1e-12)
    h = 1e-6  # f' by a difference along d^2
    squared = torch.tensor(0.8, dtype=torch.float64)
    points = [torch.stack([torch.zeros(1), s.sqrt().reshape(1)]).double() for s in (squared - h, squared, squared + h)]
    values = [gram_and_slope(p, family)[0][0, 1] for p in points]
    middle = gram_and_slope(points[1], family)[1][0, 1]
    assert ((values[2] - values[0]) / (2 * h)).item() == pytest.approx(middle.item(), rel=1e-6)
    assert slope.isfinite().all()


def toy(rows=60):
    pyro.set_rng_seed(0)
    x = torch.linspace(-3, 3, rows, dtype=torch.float64)[:, None]
    return x, (2 * x[:, 0]).sin() + 0.1 * normal(rows)


def test_every_back_ends_density_is_the_marginal_likelihood_times_the_prior():
    model, (x, y) = GaussianProcess(), toy()
    data = Data.of(model, x=x, y=y)
    with fresh(model, (data,)) as own:
        density = Density.of(joint(own, (data,), {}), (data,))
        assert density.dim == 3
        at = normal(3, seed=4) * 0.3
        value, _ = density.value_and_grad(at)
        batched = density.batched(5, compile=False)
        points = normal(5, 3, seed=2) * 0.3
        values, grads = batched(points)
    assert batched.executor == "graph"
    names = [site.name for site in density.layout.sites]
    scale = dict(zip(names, at.exp(), strict=True))
    prior = sum(
        torch.distributions.LogNormal(torch.tensor(m, dtype=torch.float64).log(), 1.0).log_prob(scale[n])
        + scale[n].log()
        for n, m in (("lengthscale", 1.0), ("amplitude", 1.0), ("noise", 0.2))
    )
    truth = plain(y, x, scale["lengthscale"], scale["amplitude"], scale["noise"], "rbf") + prior
    assert torch.isclose(value, truth, atol=1e-9)
    for point, v, g in zip(points, values, grads, strict=True):
        expected = density.value_and_grad(point)
        assert torch.isclose(v, expected[0])
        assert torch.allclose(g, expected[1], rtol=1e-7)


def test_the_mode_recovers_the_scales_and_its_mean_is_ridge_regression():
    model, (x, y) = GaussianProcess(), toy()
    data = Data.of(model, x=x, y=y)
    with fresh(model, (data,)) as own:
        density = Density.of(joint(own, (data,), {}), (data,))
        point = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS([point], max_iter=100, line_search_fn="strong_wolfe")

        def closure():
            value, grad = density.value_and_grad(point.detach())
            point.grad = -grad
            return -value

        optimiser.step(closure)
        theta = density.constrain(point.detach()[None])
    theta = {name: value[0] for name, value in theta.items()}
    assert theta["noise"].item() == pytest.approx(0.1, rel=0.3)
    function = model.regression(theta, data)
    new = torch.linspace(-2.9, 2.9, 41, dtype=torch.float64)[:, None]
    assert (function.predict(new) - (2 * new[:, 0]).sin()).abs().max() < 0.15
    a, s = theta["amplitude"], theta["noise"]
    k = a**2 * RBF(float(theta["lengthscale"]))(torch.cat([x, new]))
    inverse = torch.linalg.inv(k[:60, :60] + s**2 * torch.eye(60))
    assert torch.allclose(function.predict(new), k[60:, :60] @ inverse @ y, atol=1e-7)
    covariance = k[60:, 60:] - k[60:, :60] @ inverse @ k[:60, 60:]
    assert torch.allclose(a**2 * function.variance(new), covariance.diagonal(), atol=1e-8)


def test_simulated_functions_have_the_priors_covariance():
    data, latents = simulate(GaussianProcess(dim=2), 12, seed=1)
    assert data.observed["y"].shape == (12,)
    assert latents["lengthscale"].shape == (2,)
    from ppmodels.kernels._marginal import GaussianProcessMarginal

    pyro.set_rng_seed(0)
    x, one = normal(4, 1), torch.tensor(1.0, dtype=torch.float64)
    draws = GaussianProcessMarginal(x, one[None], 2 * one, 0.5 * one, "matern32").sample((40000,))
    truth = 4 * Matern(1.5)(x) + 0.25 * torch.eye(4)
    assert (draws.mT.cov(correction=0) - truth).abs().max() < 4 * 4.25 * (2 / 40000) ** 0.5


def test_bad_input_is_refused_in_one_line():
    for fields, words in (
        ({"dim": 0}, "dim must be at least 1"),
        ({"family": "cubic"}, "family must be one of rbf"),
        ({"noise": 0.0}, "noise must be positive"),
    ):
        with pytest.raises(ValueError, match=words):
            GaussianProcess(**fields)
    x, y = toy(10)
    model = GaussianProcess()
    with pytest.raises(ValueError, match="takes no minibatches"):
        model.model(Data.of(model, x=x, y=y).batch(torch.arange(3)))
    with pytest.raises(ValueError, match=r"x must be \(rows, 1\)"):
        model.model(Data.of(model, x=x.repeat(1, 2), y=y))
